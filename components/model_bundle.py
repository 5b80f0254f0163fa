"""The one format a trained model takes: an MLflow Model directory with raw features in and predictions out.

Inside: `preprocess/` (the transform graph without the label, a SavedModel), `model/` (what the trainer exported), `data/`
(statistics and schema of the training split, for drift) and `bundle.json`. Evaluation, batch prediction, the registry and
serving know nothing else of a model. MLflow's models-from-code loads `serve_model.py`, which loads the parts. The names of
columns are in `bundle.json` alone: the transform graph and the exports take and give features by place.
`model_bundle_writer.py` makes one; here it is read, after a look at `manifest.json` (`bundle_manifest.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.bundle_code import load_predictor_class
from components.bundle_manifest import FORMAT, verify
from components.compat import tensorflow_globs
from components.errors import UserError

FILE = "bundle.json"


@dataclass(frozen=True)
class RawFeature:
    """One raw feature.

    Attributes:
        name: its name.
        dtype: `float32`, `int64` or `string`.
        width: values a row; None: it may be missing.
        is_list: when `width` is None, a row may hold several values (else at most one).
    """

    name: str
    dtype: str
    width: int | None
    is_list: bool = False


@dataclass(frozen=True)
class Ragged:
    """A feature that may be missing, of B rows.

    Attributes:
        values: the values of all rows, one after the other (N,).
        lengths: how many each row has, int64 (B,); 0: missing.
    """

    values: np.ndarray
    lengths: np.ndarray


# Raw feature -> values of B rows as the transform graph takes them: (B, width) in the feature's dtype, texts as bytes in
# an object array; a feature without a fixed width is Ragged.
Columns = Mapping[str, "np.ndarray | Ragged"]


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Returns the rows of several sets of columns as one."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, np.ndarray | Ragged] = {}
    for name, first in parts[0].items():
        columns: list[Any] = [p[name] for p in parts]
        if isinstance(first, Ragged):
            joined[name] = Ragged(np.concatenate([c.values for c in columns]), np.concatenate([c.lengths for c in columns]))
        else:
            joined[name] = np.concatenate(columns)
    return joined


@dataclass(frozen=True)
class BundleInfo:
    """What `bundle.json` holds.

    Attributes:
        framework: the trainer's name.
        predictor: `pytorch`, `tensorflow`, or `my_trainer.py:Class` with `Trainer.load_predictor`, in the bundle's `code/`.
        task: binary, multiclass or regression.
        label: the label's column.
        classes: label values in the order of the model's outputs; empty for a regression.
        features: raw features; the transform graph takes them as `f0`, `f1`, ...
        transformed: names of the transformed features; the transform graph gives them as `t0`, `t1`, ...
        user_code: the user's code made the transform graph or the model.
    """

    framework: str
    predictor: str
    task: str
    label: str
    classes: list[Any]
    features: list[RawFeature]
    transformed: list[str] = field(default_factory=list)
    user_code: bool = False


class BundleModel:
    """A loaded bundle: raw features as a DataFrame in, predictions as arrays or a DataFrame out.

    Made by `load_bundle`, which verifies the files first.

    Args:
        folder: of `bundle.json`.
        verified: its digest is the registered one, or the run's own.
    """

    def __init__(self, folder: Path, *, verified: bool) -> None:
        self.info = _read_info(folder)
        # The trainer's framework first: PyTorch must come into the process before TensorFlow.
        trainer = load_predictor_class(folder, self.info.predictor)
        if not (verified and self.info.user_code):
            for place in (folder / "preprocess", folder / "model"):
                check_if_saved_model(place)
        import tensorflow as tf

        tensorflow_globs.install()
        self._tf = tf
        self._predict = trainer.load_predictor(folder / "model")
        self._preprocess = tf.saved_model.load(str(folder / "preprocess"))

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Returns float32 (B, outputs): probability of the last class, of each class, or the value.

        Args:
            rows: one column per raw feature; missing is None or NaN.

        Raises:
            UserError: a column is missing or its values do not fit.
        """
        return self.scores_of({f.name: _column(f, rows, self._names()) for f in self.info.features})

    def scores_of(self, columns: Columns) -> np.ndarray:
        """Returns the same for columns that are ready: nothing is checked."""
        constant = self._tf.constant
        tensors = {}
        for i, feature in enumerate(self.info.features):
            column = columns[feature.name]
            if isinstance(column, Ragged):
                tensors[f"f{i}"] = constant(column.values, feature.dtype)
                tensors[f"f{i}_lengths"] = constant(column.lengths)
            else:
                tensors[f"f{i}"] = constant(column)
        outputs = self._preprocess.transform(tensors)
        transformed = {name: outputs[f"t{i}"].numpy() for i, name in enumerate(self.info.transformed)}
        return np.asarray(self._predict(transformed), dtype=np.float32)

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Returns `prediction` and, for classes, the probabilities, one row per input row."""
        return self.table(self.scores(rows), rows.index)

    def table(self, scores: np.ndarray, index: Any = None) -> pd.DataFrame:
        """Returns scores (see `scores`) as the columns that a user sees."""
        return pd.DataFrame(answers(self.info, scores), index=index)

    def _names(self) -> list[str]:
        return [f.name for f in self.info.features]


def answers(info: BundleInfo, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Returns scores (see `BundleModel.scores`) as what a user sees: column -> values (B,), probabilities as float64."""
    if info.task == "regression":
        return {"prediction": scores[:, 0].astype("float64")}
    classes = np.asarray(info.classes, dtype=object if isinstance(info.classes[0], str) else None)
    if info.task == "binary":
        return {"prediction": classes[(scores[:, 0] >= 0.5).astype(int)], "probability": scores[:, 0].astype("float64")}
    columns = {"prediction": classes[scores.argmax(axis=1)]}
    return columns | {f"probability_{c}": scores[:, i].astype("float64") for i, c in enumerate(info.classes)}


def _column(feature: RawFeature, rows: pd.DataFrame, names: list[str]) -> np.ndarray | Ragged:
    if feature.name not in rows.columns:
        if feature.width is not None:
            raise UserError(f"column {feature.name!r} is missing. Columns needed: {', '.join(names)}.")
        return Ragged(_cast(feature, np.empty(0)), np.zeros(len(rows), dtype=np.int64))
    column = rows[feature.name]
    present = column.notna().to_numpy()
    if feature.width is not None:
        if not present.all():
            raise UserError(f"column {feature.name!r} must not be missing: it had a value in every training row.")
        fixed = np.stack(list(column)) if feature.width > 1 else column.to_numpy()
        return _cast(feature, fixed).reshape(len(rows), feature.width)
    values, lengths = column.to_numpy()[present], present.astype(np.int64)
    if feature.is_list and len(values):
        lists = [np.atleast_1d(v) for v in values]
        lengths[present] = [len(v) for v in lists]
        values = np.concatenate(lists)
    return Ragged(_cast(feature, values), lengths)


def _cast(feature: RawFeature, values: np.ndarray) -> np.ndarray:
    try:
        if feature.dtype == "string":
            return np.asarray([v if isinstance(v, bytes) else str(v).encode() for v in values.ravel()], dtype=object)
        return values.astype(np.float64).astype(feature.dtype)
    except (TypeError, ValueError) as error:
        raise UserError(f"column {feature.name!r} must hold numbers: {error}") from None


def check_if_saved_model(folder: Path) -> None:
    """Raises UserError for a folder with a SavedModel that could do more than compute."""
    if any(folder.glob("saved_model*")):
        from components.saved_model_check import check_saved_model

        check_saved_model(folder)


def load_bundle(folder: str | Path, digest: str | None = None, *, verified: bool = False) -> BundleModel:
    """Loads the bundle inside an MLflow Model directory, without MLflow's own checks of the input.

    Args:
        folder: of the MLflow Model.
        digest: that its manifest must have, from the registry or the run that made it; None: the files only have to be as
            the manifest says.
        verified: whoever calls has looked at the digest.

    Raises:
        UserError: the files are not as the manifest says, or hold what no bundle does.
    """
    verify(Path(folder), digest)
    return BundleModel(Path(folder) / "artifacts" / bundle_folder(folder), verified=verified or digest is not None)


def bundle_info(folder: str | Path) -> BundleInfo:
    """Reads what a bundle says of itself, without loading the model."""
    return _read_info(Path(folder) / "artifacts" / bundle_folder(folder))


def training_data(folder: str | Path) -> Path:
    """Folder in a bundle with the training split's `statistics.pb`, `schema.pbtxt` and `dataset.json`."""
    return Path(folder) / "artifacts" / bundle_folder(folder) / "data"


def _read_info(folder: Path) -> BundleInfo:
    loaded = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise UserError(f"model: {FILE} is no JSON object: it was changed. Train again.")
    found = loaded.pop("format", 1)
    if found != FORMAT:
        raise UserError(
            f"model: {FILE} has the format {found!r}, this version reads {FORMAT}. In format 1 column names are part of the "
            "exported code: train again."
        )
    try:
        return BundleInfo(**{**loaded, "features": [RawFeature(**f) for f in loaded["features"]]})
    except (KeyError, TypeError) as error:
        raise UserError(f"model: {FILE} cannot be read ({error}): it was changed, or a newer version made it.") from None


def bundle_folder(folder: str | Path) -> str:
    """Name of the artifact folder that holds the bundle."""
    names = os.listdir(Path(folder) / "artifacts")
    if len(names) != 1:
        raise FileNotFoundError(f"{folder} is not a model bundle: artifacts holds {names}")
    return names[0]
