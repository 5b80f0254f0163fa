"""Predicts batches of raw examples with all bundles, for every framework: labels, predictions, slice columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils import shared

from switchyard.components.baseline.fit import ChampionFit
from switchyard.components.bundle.model import BundleModel, load_bundle
from switchyard.components.bundle.rows import column_values, encode_labels
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data.tfrecords import NUMBER
from switchyard.components.errors import UserError, error_chain, first_line, text_of
from switchyard.components.evaluation.batched_metrics import Batch
from switchyard.components.evaluation.ranking import query_codes
from switchyard.components.evaluation.results import CHAMPION
from switchyard.components.evaluation.slices import SliceColumn, slice_column
from switchyard.components.evaluation.tfma_config import WEIGHT
from switchyard.components.ingest.number_lists import wide_labels
from switchyard.components.tasks import TASKS
from switchyard.components.tracking.manifest import verify
from switchyard.components.training.workers.predicting import predictor_class

_EPSILON = 1e-7
ROWS = "rows"
# Column of the rows of windows with the label's last past value.
LAST = "last:label"


class ChampionError(UserError):
    """The champion cannot be loaded, or fails for the rows: there is nothing to compare with, and no candidate is at fault."""


# What a runner with workers elsewhere leaves of it.
_AS_TEXT = re.compile(r"\bChampionError: (.+?)\s*(?:\[while running .*)?$", re.MULTILINE)


def champion_failure(error: BaseException) -> str | None:
    """Returns the message of the ChampionError behind an error, also of one that Beam's runner gives as text; else None."""
    for seen in error_chain(error):
        if isinstance(seen, ChampionError):
            return in_text[1] if (in_text := _AS_TEXT.search(f"ChampionError: {seen}")) else str(seen)
        if in_text := _AS_TEXT.search(text_of(seen)):
            return in_text[1]
    return None


@contextmanager
def _champions_errors() -> Iterator[None]:
    """Raises ChampionError for an error of the champion, except a lack of memory."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the code of a champion's tokenizer or trainer raises any type
        raise ChampionError(first_line(error)) from error


class Predict(beam.DoFn):
    """A DoFn from record batches of examples to `Batch`es: labels, predictions by model, slice columns.

    The output `ROWS` has the same data as Arrow tables, see `rows_schema`.

    Args:
        bundles: model -> folder and digest; a bundle whose files do not match its digest is an error.
        slice_features: columns to slice by.
        summary: summary of the examples.
        partly: whether the champion can judge only some rows: its scores are NaN for the others, and each candidate is
            measured a second time, as `beside(name)`, on the champion's rows.
    """

    def __init__(
        self,
        bundles: Mapping[str, tuple[str, str | None]],
        slice_features: Sequence[str],
        summary: DatasetSummary,
        *,
        partly: bool = False,
    ) -> None:
        self._places = dict(bundles)
        self._summary, self._partly = summary, partly
        self._slice_features = list(slice_features)
        self._shared = shared.Shared()

    def setup(self) -> None:
        """Loads the bundles once per process."""
        self._bundles: dict[str, BundleModel] = self._shared.acquire(lambda: Loaded(self._places))

    def process(self, batch: pa.RecordBatch) -> Iterator[Any]:
        """Yields one `Batch` and one table."""
        summary = self._summary
        labels = _labels(batch, summary)
        weights = column_values(batch, summary.sample_weight, wide=False).astype(np.float64) if summary.sample_weight else None
        slices = {name: slice_column(batch, name) for name in self._slice_features}
        last = last_values(batch, summary)
        scores, judged = {}, {}
        for name, bundle in self._bundles.items():
            if name == CHAMPION:
                with _champions_errors():
                    scores[name], rows = _champion_scores(bundle, summary, batch)
                if self._partly:
                    judged[name] = rows
            else:
                scores[name] = _clipped(bundle.score_batch(batch), summary)
        number = batch.column(NUMBER).to_numpy() if summary.draws_clusters else None
        yield beam.pvalue.TaggedOutput(ROWS, _table(labels, scores, slices, judged, weights, last, number))
        for name in [n for n in scores if n != CHAMPION and self._partly]:
            scores[beside(name)], judged[beside(name)] = scores[name], judged[CHAMPION]
        yield Batch(labels, scores, slices, judged, weights)


def last_values(batch: pa.RecordBatch, summary: DatasetSummary) -> np.ndarray | None:
    """Returns the label's last past value of each window, float64 (B,); None if rows are no windows."""
    if summary.windows is None:
        return None
    past = batch.column(summary.windows["settings"]["label"])
    values: np.ndarray = past.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(batch.num_rows, -1)
    return values[:, -1]


def _labels(batch: pa.RecordBatch, summary: DatasetSummary) -> np.ndarray:
    """Returns the labels of examples, see `bootstrap.Rows`."""
    if TASKS[summary.task].own_shape:
        return wide_labels(batch, summary.labels)
    each = [encode_labels(column_values(batch, n, wide=False), summary.classes) for n in summary.labels]
    each += [query_codes(batch.column(summary.group), summary.missing_values)] if summary.group else []
    return np.stack(each, axis=1) if len(each) > 1 else each[0]


def beside(name: str) -> str:
    """Returns a candidate's name for its metrics on the champion's rows."""
    return f"{name}@{CHAMPION}"


def _clipped(scores: np.ndarray, summary: DatasetSummary) -> np.ndarray:
    # As in Keras: float32 rounds confident predictions to exactly 0 or 1, whose logarithm is infinite.
    return scores.clip(_EPSILON, 1 - _EPSILON) if TASKS[summary.task].has_probabilities else scores


def _champion_scores(bundle: BundleModel, summary: DatasetSummary, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Returns the champion's scores for the data's classes, NaN for rows it cannot judge, and the mask of rows it can judge."""
    champion = ChampionFit(bundle.info, summary)
    taken = champion.take(batch)
    scores = np.full((batch.num_rows, champion.outputs), np.nan, dtype=np.float32)
    if taken.mask.any():
        found = bundle.score_columns(taken.columns)
        scores[taken.mask] = _clipped(champion.aligned(found), summary)
    return scores, taken.mask


class Loaded(dict[str, BundleModel]):
    """The bundles by name. A subclass of dict, as plain dicts do not support the weak references of `Shared`."""

    def __init__(self, places: Mapping[str, tuple[str, str | None]]) -> None:
        super().__init__({name: _loaded(name, folder, digest) for name, (folder, digest) in places.items()})


def _loaded(name: str, folder: str, digest: str | None) -> BundleModel:
    """Returns a bundle. Raises ChampionError if the champion's own files are intact and cannot be loaded."""
    try:
        return load_bundle(folder, digest, predictor_class=predictor_class)
    except Exception:
        if name != CHAMPION:
            raise
        verify(Path(folder), digest)  # changed files are an error of the run
        with _champions_errors():
            raise


def rows_schema(
    models: Sequence[str],
    slice_features: Sequence[str],
    *,
    several: bool = False,
    weighted: bool = False,
    windows: bool = False,
    numbered: bool = False,
) -> pa.Schema:
    """Returns the schema of the predictions: `label`, a list of scores per model, `slice:<feature>` as text, and `WEIGHT`.

    `label` is a list if there are `several` columns, of a custom task, or with the query of a ranking. Windows have `LAST`,
    too, and rows whose order counts `NUMBER`.

    The champion's list is null for a row that it cannot judge.
    """
    label = pa.list_(pa.float64()) if several else pa.float64()
    fields = [pa.field("label", label), *(pa.field(m, pa.list_(pa.float32())) for m in models)]
    fields += [pa.field(f"slice:{f}", pa.string()) for f in slice_features]
    fields += [pa.field(name, pa.float64()) for name, there in {WEIGHT: weighted, LAST: windows}.items() if there]
    return pa.schema([*fields, pa.field(NUMBER, pa.int64())] if numbered else fields)


def _table(
    labels: np.ndarray,
    scores: Mapping[str, np.ndarray],
    slices: Mapping[str, SliceColumn],
    judged: Mapping[str, np.ndarray],
    weights: np.ndarray | None,
    last: np.ndarray | None,
    number: np.ndarray | None,
) -> pa.Table:
    several = labels.ndim > 1
    columns: dict[str, Any] = {"label": pa.array(list(labels) if several else labels)}
    for name, values in scores.items():
        rows = judged.get(name, np.ones(len(values), dtype=bool))
        offsets = pa.array(np.concatenate([[0], np.cumsum(rows * values.shape[1])]), pa.int32())
        flat = pa.array(values[rows].ravel(), pa.float32())
        # Null rows must have no values in the flat array, as Parquet does not write them.
        columns[name] = pa.ListArray.from_arrays(offsets, flat, mask=None if rows.all() else pa.array(~rows))
    columns |= {f"slice:{name}": column.text() for name, column in slices.items()}
    if weights is not None:
        columns[WEIGHT] = pa.array(weights, pa.float64())
    if last is not None:
        columns[LAST] = pa.array(last, pa.float64())
    if number is not None:
        columns[NUMBER] = pa.array(number, pa.int64())
    there = {"weighted": weights is not None, "windows": last is not None, "numbered": number is not None}
    schema = rows_schema(list(scores), list(slices), several=several, **there)
    return pa.table(columns, schema=schema)
