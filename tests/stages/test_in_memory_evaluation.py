"""The evaluation of examples that fit in memory is that of the Beam pipeline: files, figures, verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx.types import standard_artifacts
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from switchyard.components import artifacts
from switchyard.components.baseline.contents import BaselineContents
from switchyard.components.bundle.model import BundleInfo, bundle_path
from switchyard.components.data.row_keys import save_row_keys
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.evaluation import predictions
from switchyard.components.evaluation.config import EvaluationSettings, Improvement
from switchyard.components.evaluation.executor import Executor
from switchyard.components.evaluation.results import Evaluation
from switchyard.components.evaluation.slices import SliceColumn, slices_of
from switchyard.components.evaluation.tfma_config import eval_config
from switchyard.components.tasks import CUSTOM, TASKS
from switchyard.components.values.conversion import fit_rows
from switchyard.components.values.raw_features import RawFeature
from switchyard.pipelines.config.beam import BeamConfig
from tests.training_inputs import TARGETS

# Rows of a shard: several batches, the last one small.
ROWS = 2_300
# Not the custom task: it has no metric, plot or slice of TFMA's, see tests/features/test_custom_task.py.
CLASSES: Mapping[str, list[Any]] = {
    "binary": ["no", "yes"],
    "multiclass": ["u", "v", "w"],
    **{task: [] for task in TASKS if task not in ("binary", "multiclass", CUSTOM)},
}
LABELS = {"multioutput": ("y1", "y2"), "multilabel": ("y1", "y2")}
OWN = "def cost(labels, scores):\n    return float((labels{}.T @ scores).sum())\n"


def _targets(task: str) -> tuple[str, ...]:
    return LABELS.get(task) or TARGETS.get(task, ())


def _batch(task: str, seed: int) -> pa.RecordBatch:
    """Rows whose columns `a`, `b` and `champion` are the scores of these models; the champion has none of every seventh row."""
    random = np.random.default_rng(seed)
    outputs = len(_targets(task)) or (3 if task == "multiclass" else 1)

    def column(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array([None if v is None else np.atleast_1d(v).tolist() for v in values], pa.list_(kind))

    def scores(digits: int) -> pa.Array:
        values = np.sort(np.round(random.uniform(0, 1, (ROWS, outputs)), digits), axis=1)
        return column(
            values / np.maximum(values.sum(axis=1, keepdims=True), 1e-3) if task == "multiclass" else values, pa.float32()
        )

    champion: list[Any] = scores(2).to_pylist()
    champion[::7] = [None] * len(champion[::7])
    classes = CLASSES[task]

    def labels() -> pa.Array:
        if classes:
            return column([classes[i].encode() for i in random.integers(0, len(classes), ROWS)], pa.binary())
        values = random.normal(0.5, 1, ROWS) if task not in ("multilabel", "ranking") else random.integers(0, 2, ROWS)
        return column(values.astype(float), pa.float32())

    columns = {
        "a": scores(9),
        "b": scores(1),
        "champion": column(champion, pa.float32()),
        "city": column([None if c == 3 else ["Ä".encode(), b"b", b""][c] for c in random.integers(0, 4, ROWS)], pa.binary()),
        "share": column(random.choice([0.5, 2.0, np.nan], ROWS), pa.float32()),
        "count": column([int(c) if c else None for c in random.integers(0, 3, ROWS)], pa.int64()),
        **{name: labels() for name in LABELS.get(task, ("y",))},
        # Queries have rows in several batches and shards.
        **({"query": column(random.integers(0, 90, ROWS).tolist(), pa.int64())} if task == "ranking" else {}),
        "weight": column(random.integers(0, 4, ROWS) / 2, pa.float32()),
    }
    return pa.RecordBatch.from_pydict(columns)


class ColumnModel:
    """A bundle whose scores are a column's values."""

    def __init__(self, name: str, task: str, width: int) -> None:
        self._name = name
        self.info = BundleInfo(
            "pytorch",
            "pytorch",
            task,
            ",".join(LABELS.get(task, ("y",))),
            CLASSES[task],
            [RawFeature(name, "float32", width)],
            targets=list(_targets(task)),
        )

    def score_columns(self, columns: Any) -> np.ndarray:
        return np.asarray(columns[self._name], dtype=np.float32)

    def score_batch(self, batch: pa.RecordBatch) -> np.ndarray:
        return self.score_columns(fit_rows(batch, self.info.features).columns)


def _artifact(kind: Any, folder: Path) -> Any:
    artifact = kind()
    artifact.uri = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return artifact


class Case:
    """The stage's inputs for a task, and models whose scores are columns."""

    def __init__(
        self,
        task: str,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        shards: int = 1,
        version: str | None = "3",
        weight: str = "",
        windows: Mapping[str, Any] | None = None,
        keys: np.ndarray | None = None,
    ) -> None:
        self._folder = folder
        self._examples = _artifact(standard_artifacts.Examples, folder / "examples")
        (folder / "examples" / "Split-test").mkdir()
        for shard in range(shards):
            with tf.io.TFRecordWriter(str(folder / "examples" / "Split-test" / f"data-{shard}")) as writer:
                for record in RecordBatchToExamplesEncoder().encode(_batch(task, shard)):
                    writer.write(record)
        width = len(_targets(task)) or (3 if task == "multiclass" else 1)
        kinds = dict.fromkeys(("a", "b", "champion"), "list of float" if width > 1 else "float")
        label, kind = LABELS.get(task, ("y",)), "string" if CLASSES[task] else "float"
        columns = {**kinds, "city": "string", "share": "float", "count": "integer", **dict.fromkeys(label, kind)}
        group = "query" if task == "ranking" else None
        columns |= {group: "integer"} if group else {}
        columns["weight"] = "float"
        rows = {"train": 1, "test": shards * ROWS}
        DatasetSummary(
            "f",
            [],
            columns,
            {},
            rows,
            0,
            [],
            [],
            ",".join(label),
            task,
            CLASSES[task],
            {},
            targets=list(_targets(task)),
            group=group,
            sample_weight=weight,
            windows=dict(windows) if windows else None,
            split_key="" if keys is None else "user",
        ).save(self._examples.uri)
        if keys is not None:
            save_row_keys(self._examples.uri, keys)
        self._models = []
        for name in ("a", "b"):
            model = _artifact(standard_artifacts.Model, folder / name)
            model.set_string_custom_property("framework", name)
            self._models.append(model)
        self._baseline = _artifact(artifacts.Baseline, folder / "baseline")
        BaselineContents(version, "pytorch", "", None, "", rows=shards * ROWS, judged=shards * ROWS - 1).save(self._baseline.uri)
        (folder / "own.py").write_text(OWN.format("[:, :1]" if task == "ranking" else ""))
        by_folder = {str(bundle_path(m.uri)): n for m, n in zip(self._models, ("a", "b"), strict=True)}
        monkeypatch.setattr(
            predictions, "load_bundle", lambda place, digest, **_: ColumnModel(by_folder.get(place, "champion"), task, width)
        )

    def evaluate(self, limit: int, **given: Any) -> Path:
        """Runs the stage with the given settings, with Beam where `limit` is 0; returns its output."""
        evaluation = _artifact(standard_artifacts.ModelEvaluation, self._folder / f"evaluation-{limit}")
        blessing = _artifact(standard_artifacts.ModelBlessing, self._folder / f"blessing-{limit}")
        settings = EvaluationSettings(
            slices=(("city",), ("city", "count"), ("share",), ("count",)),
            metrics=str(self._folder / "own.py"),
            comparable=0.1,
            **given,
        )
        arguments = list(BeamConfig(in_memory_limit=limit).arguments())
        executor = Executor(Executor.Context(beam_pipeline_args=arguments, tmp_dir=str(self._folder)))
        executor.Do(
            {"examples": [self._examples], "model": self._models, "baseline": [self._baseline]},
            {"evaluation": [evaluation], "blessing": [blessing]},
            {"settings": settings.model_dump_json()},
        )
        return Path(evaluation.uri)


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Returns what differs between two messages, or two documents of JSON; numbers by more than 1e-9 of their size."""
    if one == other:
        return []
    if hasattr(one, "DESCRIPTOR"):
        names = [f.name for f in one.DESCRIPTOR.fields]
        return [d for n in names for d in _differences(getattr(one, n), getattr(other, n), f"{path}.{n}")]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{path}: {sorted(one)} and {sorted(other)}"]
        return [d for n in one for d in _differences(one[n], other[n], f"{path}.{n}")]
    if not isinstance(one, str | bytes) and hasattr(one, "__len__"):
        if len(one) != len(other):
            return [f"{path}: {len(one)} and {len(other)}"]
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in _differences(*pair, f"{path}[{i}]")]
    same = one == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True) if isinstance(one, float) else one == other
    return [] if same else [f"{path}: {one} and {other}"]


def _by_slice(records: Any) -> dict[bytes, Any]:
    return {record.slice_key.SerializeToString(): record for record in records}


@pytest.mark.parametrize(
    ("task", "version", "weight"),
    [
        pytest.param("binary", "3", "weight", marks=pytest.mark.core),
        ("binary", "3", ""),
        ("binary", None, ""),
        *((t, "3", w) for t in CLASSES if t != "binary" for w in ("", "weight") if not (w and TASKS[t].groups)),
    ],
)
def test_an_evaluation_in_memory_is_that_of_the_beam_pipeline(
    task: str, version: str | None, weight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(task, tmp_path, monkeypatch, version=version, weight=weight)
    beam, memory = case.evaluate(0), case.evaluate(256)
    assert {p.relative_to(memory) for p in memory.rglob("*")} == {p.relative_to(beam) for p in beam.rglob("*")}
    one, other = (pa.parquet.read_table(folder / "predictions") for folder in (memory, beam))
    assert one.equals(other)
    for load in (tfma.load_metrics, tfma.load_plots):
        mine, theirs = (_by_slice(load(str(folder))) for folder in (memory, beam))
        assert len(mine) > 10
        assert _differences(mine, theirs) == []
    # The verdicts, intervals of the bootstrap and own metrics too.
    mine, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (memory, beam))
    assert mine["models"]["a"]["metrics"]["cost"]
    slices = [model["slices"] for model in mine["models"].values()]
    assert all(
        "example_count" in values and ("cost" in values) == (values["example_count"] >= 100)
        for of in slices
        for values in of.values()
    )
    assert mine["models"]["a"]["intervals"]
    assert _differences(mine, theirs) == []
    assert (memory / "eval_config.json").read_text() == (beam / "eval_config.json").read_text()
    assert [p.name for p in (tmp_path / "blessing-256").iterdir()] == [p.name for p in (tmp_path / "blessing-0").iterdir()]


@pytest.mark.parametrize("task", CLASSES)
def test_a_metric_of_ones_own_decides_between_the_models(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In either direction, on the champion's rows, with an interval."""
    case = Case(task, tmp_path, monkeypatch)
    found = {}
    for better in ("higher", "lower"):
        folder = case.evaluate(256, improvement=Improvement(metric="cost", better=better))
        result = Evaluation.load(str(folder))
        costs = {name: result.models[name].metrics["cost"] for name in ("a", "b")}
        assert result.metric == "cost"
        assert list(result.models)[:2] == sorted(costs, key=costs.__getitem__, reverse=better == "higher")
        low, high = result.models["a"].intervals["cost"]
        assert low < costs["a"] < high
        against = {c.model: c for c in result.comparisons if c.other == "champion"}
        assert against.keys() == {"a", "b"}
        found[better] = {name: c.difference for name, c in against.items()}
        assert all(c.low is not None and c.low < c.difference < c.high for c in against.values())
    assert found["higher"] == pytest.approx({name: -value for name, value in found["lower"].items()})


@pytest.mark.parametrize("limit", [256, 0], ids=["memory", "beam"])
@pytest.mark.parametrize("fails", ["load", "score"])
def test_a_champion_that_fails_ends_the_comparison_and_not_the_evaluation(
    fails: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, load = Case("binary", tmp_path, monkeypatch), predictions.load_bundle
    verified = []

    def failing(folder: str, digest: str | None, **given: Any) -> Any:
        model = load(folder, digest, **given)
        if model.info.features[0].name != "champion":
            return model
        if fails == "load":
            raise UserError("tokenizer: words.py: makes other arrays here")
        monkeypatch.setattr(model, "score_columns", lambda columns: columns["no such column"])
        return model

    monkeypatch.setattr(predictions, "load_bundle", failing)
    monkeypatch.setattr(predictions, "verify", lambda *given: verified.append(given))
    result = Evaluation.load(str(case.evaluate(limit)))
    why = {"load": "tokenizer: words.py: makes other arrays here", "score": "'no such column'"}[fails]
    assert result.not_compared == f"champion version 3 of  cannot be compared: it fails: {why}"
    assert list(result.models) == ["a", "b"] or list(result.models) == ["b", "a"]
    assert not result.blessed
    assert all(any(why in f for f in model.failures) for model in result.models.values())
    assert bool(verified) == (fails == "load")
    replaced = Evaluation.load(str(case.evaluate(limit, incomparable_champion="replace")))
    assert not any(why in f for model in replaced.models.values() for f in model.failures)


def test_a_champions_failure_is_recognised_in_the_text_of_a_worker_elsewhere() -> None:
    trace = "Traceback\n  ...\nswitchyard.x.ChampionError: 'a b' [while running 'Predict-ptransform-3']\n\n\tat org.Flink"
    assert predictions.champion_failure(RuntimeError(trace)) == "'a b'"
    assert predictions.champion_failure(RuntimeError("out of disk")) is None


def test_rows_of_several_shards_are_measured_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("binary", tmp_path, monkeypatch, shards=3)
    beam, memory = case.evaluate(0), case.evaluate(256)
    mine, theirs = (_by_slice(tfma.load_metrics(str(folder))) for folder in (memory, beam))
    assert _differences(mine, theirs) == []
    assert pa.parquet.read_table(memory / "predictions").num_rows == 3 * ROWS


def test_windows_are_drawn_in_periods_though_workers_return_them_in_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"order": "hour", "past": 2, "future": 2, "label": "a"}
    windows = {"settings": settings, "rows_at": {"test": [100] * (3 * ROWS // 100)}}
    case = Case("multioutput", tmp_path, monkeypatch, shards=3, windows=windows)
    mine, theirs = (json.loads((case.evaluate(limit) / "metrics.json").read_text()) for limit in (256, 0))
    assert _differences(mine, theirs) == []
    (tmp_path / "alone").mkdir()
    alone = json.loads(
        (Case("multioutput", tmp_path / "alone", monkeypatch, shards=3).evaluate(256) / "metrics.json").read_text()
    )
    low, high = np.array([found["models"]["a"]["intervals"]["loss"] for found in (mine, alone)]).T
    assert abs((high - low)[0] / (high - low)[1] - 1) > 1e-3, "of periods, which here are independent rows"


def test_rows_of_a_key_are_drawn_together_though_workers_return_them_in_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neighbours of two shards are one customer's.
    keys = (np.arange(2 * ROWS) // 50).astype(np.uint64)
    case = Case("regression", tmp_path, monkeypatch, shards=2, keys=keys)
    mine, theirs = (json.loads((case.evaluate(limit) / "metrics.json").read_text()) for limit in (256, 0))
    assert _differences(mine, theirs) == []
    (tmp_path / "alone").mkdir()
    alone = json.loads((Case("regression", tmp_path / "alone", monkeypatch, shards=2).evaluate(256) / "metrics.json").read_text())
    assert mine["models"]["a"]["intervals"]["loss"] != alone["models"]["a"]["intervals"]["loss"]
    few = Case("regression", tmp_path / "few", monkeypatch, shards=2, keys=keys % 4)
    noted = json.loads((few.evaluate(256) / "metrics.json").read_text())
    assert (
        "the split 'test' has 4 values of the split key 'user', too few for intervals: at least 10 are needed" in noted["notes"]
    )


@pytest.mark.parametrize(("limit", "pipelines"), [(256, 0), (0, 1)])
def test_a_pipeline_evaluates_what_is_larger_than_the_limit(
    limit: int, pipelines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, run = Case("regression", tmp_path, monkeypatch), []
    original = tfma.default_writers
    monkeypatch.setattr(tfma, "default_writers", lambda **given: [run.append("Beam"), original(**given)][1])
    case.evaluate(limit)
    assert len(run) == pipelines


def test_combinations_of_many_columns_of_many_values_are_slices() -> None:
    column = SliceColumn(np.arange(10_000), [str(i) for i in range(10_000)])
    columns = dict.fromkeys("abcde", column)
    [spec] = [s for s in eval_config("regression", [tuple(columns)], ["m"]).slicing_specs if s.feature_keys]
    (key, indices), *_ = slices_of(columns, [spec], 10_000)
    assert key == tuple((name, "0") for name in columns)
    assert indices.tolist() == [0]
