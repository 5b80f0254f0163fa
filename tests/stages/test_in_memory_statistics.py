"""Statistics of examples that fit in memory are those of TFDV's Beam pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.types import standard_artifacts
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from switchyard.components.compat import tfdv_in_memory
from switchyard.components.compat.tfdv_quantiles import stats_options
from switchyard.components.data.summary import split_files
from switchyard.components.data.tfrecords import read_batches
from switchyard.components.data_gate.inferred_schema import StatisticsExecutor
from switchyard.pipelines.config.beam import BeamConfig

pytestmark = [
    pytest.mark.core,
    # TFDV takes the variance of a column with infinite values.
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
ROWS = {"train": 21_000, "eval": 1_500}
SHARDS = 3


def _batch(rows: int, seed: int) -> pa.RecordBatch:
    """Numbers and texts: missing, skewed, constant, not UTF-8, several a row; more distinct ones than TFDV's sketches hold."""
    random = np.random.default_rng(seed)
    missing = random.random(rows) < 0.2

    def column(values: list[Any], kind: pa.DataType, gaps: bool = False) -> pa.Array:
        return pa.array(
            [None if gaps and m else v if isinstance(v, list) else [v] for v, m in zip(values, missing, strict=True)],
            pa.list_(kind),
        )

    return pa.RecordBatch.from_pydict(
        {
            "amount": column(random.lognormal(3, 2, rows).tolist(), pa.float32()),
            "gaps": column(random.normal(size=rows).tolist(), pa.float32(), gaps=True),
            "seconds": column((1_600_000_000 + random.integers(0, 10**8, rows)).tolist(), pa.int64()),
            "constant": column([7] * rows, pa.int64()),
            "vector": column(random.normal(size=(rows, 3)).tolist(), pa.float32()),
            "infinite": column(np.where(missing, np.inf, 1.5).tolist(), pa.float32()),
            "word": column([b"w%d" % n for n in random.zipf(1.5, rows) % 5000], pa.binary(), gaps=True),
            "id": column([b"%d-%d" % (seed, i) for i in range(rows)], pa.binary()),
            "spoiled": column([b"\xff\xfe", b"fine"] * (rows // 2), pa.binary()),
            "tags": column([[b"a", b"b"][: i % 3] for i in range(rows)], pa.binary()),
            "never": column([None] * rows, pa.binary(), gaps=True) if seed else column([b"x"] * rows, pa.binary(), gaps=True),
        }
    )


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.Examples:
    """Two splits of three shards."""
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path_factory.mktemp("examples"))
    artifact.split_names, artifact.span = '["train", "eval"]', 3
    for number, (split, rows) in enumerate(ROWS.items()):
        folder = Path(artifact.uri) / f"Split-{split}"
        folder.mkdir()
        for shard in range(SHARDS):
            batch = _batch(rows // SHARDS, 10 * number + shard)
            with tf.io.TFRecordWriter(str(folder / f"data-{shard}")) as writer:
                for row in RecordBatchToExamplesEncoder().encode(batch):
                    writer.write(row)
    return artifact


def _computed(examples: Any, folder: Path, limit: int) -> standard_artifacts.ExampleStatistics:
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = str(folder)
    arguments = list(BeamConfig(in_memory_limit=limit).arguments())
    executor = StatisticsExecutor(StatisticsExecutor.Context(beam_pipeline_args=arguments, tmp_dir=str(folder)))
    executor.Do({"examples": [examples]}, {"statistics": [statistics]}, {})
    return statistics


@pytest.fixture(scope="module")
def by_beam(examples: Any, tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.ExampleStatistics:
    """The statistics that TFX's own executor computes."""
    return _computed(examples, tmp_path_factory.mktemp("beam"), 0)


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yields what differs between two messages; numbers differ by more than 1e-9 of their size."""
    for field in one.DESCRIPTOR.fields:
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        where = f"{path}.{field.name}"
        if field.label == field.LABEL_REPEATED:
            if len(mine) != len(theirs):
                yield f"{where}: {len(mine)} and {len(theirs)}"
                continue
            pairs = list(zip(mine, theirs, strict=True))
        else:
            pairs = [(mine, theirs)]
        for i, (a, b) in enumerate(pairs):
            if field.message_type:
                yield from _differences(a, b, f"{where}[{i}]")
            elif isinstance(a, float):
                if a != pytest.approx(b, rel=1e-9, abs=1e-9, nan_ok=True):
                    yield f"{where}: {a} and {b}"
            elif a != b:
                yield f"{where}: {a} and {b}"


def _read(artifact: Any, split: str) -> Any:
    file = Path(artifact.uri) / f"Split-{split}" / "FeatureStats.pb"
    return statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())


@pytest.mark.parametrize("rows", [100_000, 100])
@pytest.mark.parametrize("split", ROWS)
def test_statistics_in_memory_equal_those_of_the_beam_pipeline(
    split: str, rows: int, examples: Any, by_beam: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many rows in some order of the shards, which Beam chooses: TFDV's quantiles are estimates that depend on it.

    `rows`: distinct values beyond which counts are added up while batches are read.
    """
    monkeypatch.setattr(tfdv_in_memory._TopK, "_ROWS", rows)
    expected = _read(by_beam, split)
    for order in itertools.permutations(split_files(examples.uri, split)):
        found = tfdv_in_memory.statistics_of(itertools.chain.from_iterable(map(read_batches, order)), stats_options())
        different = list(_differences(found, expected))
        assert {d.split(":")[0].rpartition(".")[2] for d in different} <= {"median", "low_value", "high_value", "sample_count"}
        if not different:
            break
    else:
        pytest.fail("\n".join(different))


def test_the_stage_computes_them_in_memory(examples: Any, tmp_path: Path) -> None:
    found = _computed(examples, tmp_path, 256)
    for split in ROWS:
        batches = itertools.chain.from_iterable(map(read_batches, split_files(examples.uri, split)))
        assert list(_differences(_read(found, split), tfdv_in_memory.statistics_of(batches, stats_options()))) == []
    texts = {f.path.step[0]: f.string_stats for f in _read(found, "train").datasets[0].features}
    assert texts["id"].unique == ROWS["train"]
    assert texts["spoiled"].invalid_utf8_count == ROWS["train"] // 2


def test_the_artifact_has_the_properties_that_tfx_writes(examples: Any, by_beam: Any, tmp_path: Path) -> None:
    found = _computed(examples, tmp_path, 256)

    def described(artifact: Any) -> str:
        return str(artifact.mlmd_artifact).replace(artifact.uri, "<uri>")

    assert described(found) == described(by_beam)
    assert sorted(p.relative_to(found.uri) for p in Path(found.uri).rglob("*.pb")) == sorted(
        p.relative_to(by_beam.uri) for p in Path(by_beam.uri).rglob("*.pb")
    )


@pytest.mark.parametrize(("limit", "pipelines"), [(256, 0), (1, 1), (0, 1)])
def test_beam_computes_statistics_of_data_above_the_limit(
    limit: int, pipelines: int, examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []
    monkeypatch.setattr(
        "tfx.components.statistics_gen.executor.Executor.Do", lambda self, inputs, outputs, properties: run.append("Beam")
    )
    _computed(examples, tmp_path, limit)
    assert len(run) == pipelines
