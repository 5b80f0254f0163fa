"""Loads model bundles: MLflow Model directories that map raw features to predictions.

A bundle holds `preprocess/` (the transform graph without the label, a SavedModel), `model/` (the trainer's export), `data/`
(statistics and schema of the training split, for drift, and a few rows, for the server's warm-up) and `bundle.json`; `code/`
with a custom trainer, `tokenizer/` with a tokenizer. An ensemble has `members/` in place of `model/` and `code/`.
Evaluation, batch prediction, the registry and serving use only this format. MLflow's models-from-code loads a copy of
`switchyard/mlflow_model.py`, which loads the parts. Only `bundle.json` holds the names of columns: the transform graph and the
exports use positional features. `writer.py` writes bundles; this module verifies `manifest.json` before it loads one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from switchyard.components.bundle.code import load_predictor_class
from switchyard.components.bundle.members import FOLDER as MEMBERS
from switchyard.components.bundle.members import Member, averaged
from switchyard.components.bundle.members import problem as problem_of_members
from switchyard.components.compat import tensorflow_globs
from switchyard.components.data.class_order import KEY as POSITIVE_CLASS
from switchyard.components.data.class_order import places, positive_class, same_classes
from switchyard.components.errors import UserError
from switchyard.components.tasks import TASKS
from switchyard.components.tracking.manifest import FORMAT, verify
from switchyard.components.user_code.tokenizer import FOLDER as TOKENIZER
from switchyard.components.user_code.tokenizer import load_tokenizer
from switchyard.components.values.conversion import fit_frame, fit_rows
from switchyard.components.values.raw_features import Columns, Ragged, RawFeature, concatenate

__all__ = [
    "FILE",
    "BundleInfo",
    "BundleModel",
    "Columns",
    "Ragged",
    "RawFeature",
    "bundle_folder",
    "bundle_info",
    "bundle_path",
    "check_if_saved_model",
    "concatenate",
    "format_predictions",
    "load_bundle",
    "training_data",
]  # fmt: skip

FILE = "bundle.json"
# In `data/`: rows to warm up and check a server with.
ROWS = "rows.parquet"
# From a bundle's folder and `BundleInfo.predictor` to a class with `load_predictor`.
PredictorClass = Callable[[Path, str], Any]
_MEANING = re.compile(r"\w*(\[\w+\])?")


@dataclass(frozen=True)
class BundleInfo:
    """The content of `bundle.json`.

    Attributes:
        framework: name of the trainer.
        predictor: a framework, or `my_trainer.py:Class` with `Trainer.load_predictor`, in the bundle's `code/`.
        task: binary, multiclass or regression.
        label: column of the label; of several, their names joined by commas.
        classes: label values in the order of the model's outputs, a binary task's positive class last; empty for a regression.
        features: raw features; inputs `f0`, `f1`, ... of the transform graph.
        transformed: names of the transformed features; outputs `t0`, `t1`, ... of the transform graph.
        targets: see `DatasetSummary.targets`.
        user_code: whether the user's code made the transform graph or the model.
        tokenizer: whether the bundle's `tokenizer/` replaces the transformed texts, see `components.user_code.tokenizer`.
        sample_weight: column with the weights of the training rows, which is no input; empty without weights.
        output_shape: see `DatasetSummary.output_shape`.
        members: of an ensemble its members, in the order in which they are loaded; empty for a single model.
    """

    framework: str
    predictor: str
    task: str
    label: str
    classes: list[Any]
    features: list[RawFeature]
    transformed: list[str] = field(default_factory=list)
    user_code: bool = False
    targets: list[str] = field(default_factory=list)
    tokenizer: bool = False
    sample_weight: str = ""
    output_shape: list[int] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    @cached_property
    def by_name(self) -> dict[str, RawFeature]:
        """Raw features by their names."""
        return {f.name: f for f in self.features}

    @cached_property
    def needed(self) -> list[str]:
        """Names of the raw features without which a row cannot be scored."""
        return [f.name for f in self.features if f.width is not None]

    @cached_property
    def scalar_numbers(self) -> list[RawFeature]:
        """Raw features of one number per row, see `RawFeature.holds_numbers`."""
        return [f for f in self.features if f.is_scalar and f.holds_numbers]

    @property
    def models(self) -> list[Member]:
        """The members of an ensemble, or the one model."""
        return self.members or [Member(self.framework, self.predictor, 1.0)]

    @property
    def labels(self) -> list[str]:
        """The label columns; none of a model that was trained without a label."""
        return list(self.targets) if TASKS[self.task].has_labels else [self.label] * bool(self.label)

    @property
    def outputs(self) -> int:
        """Number of scores of a row."""
        return TASKS[self.task].outputs(self.classes, self.targets, self.output_shape)

    @property
    def score_names(self) -> list[str]:
        """Names of the columns of scores, in the order of the model's outputs; of a custom task one column has all of them."""
        return TASKS[self.task].score_names(self.classes, self.targets)

    @property
    def positive_class(self) -> Any | None:
        """The class whose probability a binary model outputs; None for other tasks."""
        return positive_class(self.task, self.classes)


class BundleModel:
    """A loaded bundle, which maps a DataFrame of raw features to predictions as an array or a DataFrame.

    Use `load_bundle`, which verifies the files first.

    Args:
        folder: folder of `bundle.json`.
        verified: whether the bundle's digest matches the one of the registry or the run.
        predictor_class: finds the class with `load_predictor`; default: `load_predictor_class`.
    """

    def __init__(self, folder: Path, *, verified: bool, predictor_class: PredictorClass | None = None) -> None:
        self.info = _read_info(folder)
        places, find = model_folders(folder, self.info), predictor_class or load_predictor_class
        # Import the trainers' frameworks first: PyTorch must be imported before TensorFlow.
        trainers = [find(place, model.predictor) for place, model in zip(places, self.info.models, strict=True)]
        # The tokenizer may import PyTorch, too.
        self._tokenizer = load_tokenizer(folder / TOKENIZER) if self.info.tokenizer else None
        if not (verified and self.info.user_code):
            for place in (folder / "preprocess", *(place / "model" for place in places)):
                check_if_saved_model(place)
        import tensorflow as tf

        tensorflow_globs.install()
        self._tf = tf
        loaded = [trainer.load_predictor(place / "model") for trainer, place in zip(trainers, places, strict=True)]
        weights = [model.weight for model in self.info.models]
        self._predict = averaged(list(zip(loaded, weights, strict=True)), ascending=TASKS[self.info.task].ascending)
        self._preprocess = tf.saved_model.load(str(folder / "preprocess"))

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Returns float32 (B, outputs): the probability of the last class (binary), of each class, or the value (regression).

        Args:
            rows: one column per raw feature; missing values are None or NaN.

        Raises:
            UserError: a column is missing or has invalid values.
        """
        return self.score_columns(fit_frame(rows, self.info.features))

    def score_columns(self, columns: Columns) -> np.ndarray:
        """Returns the scores of validated columns, see `scores`; does not check them.

        Raises:
            RefusedRowsError: the tokenizer fails for some rows.
        """
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
        transformed = self._tokenizer.of_good_rows(transformed) if self._tokenizer else transformed
        scores = np.asarray(self._predict(transformed), dtype=np.float32)
        return np.sort(scores, axis=1) if TASKS[self.info.task].ascending else scores

    def score_batch(self, batch: pa.RecordBatch) -> np.ndarray:
        """Returns the scores of a record batch of any Arrow types, see `scores`.

        Raises:
            UserError: a value is invalid.
        """
        fitted = fit_rows(batch, self.info.features)
        if fitted.misfits:
            row, why = min(fitted.misfits.items())
            raise UserError(f"{why} (row {row}{f' and {len(fitted.misfits) - 1} more' if len(fitted.misfits) > 1 else ''}).")
        return self.score_columns(fitted.columns)

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Returns `prediction` and, for classification, the probabilities, one row per input row."""
        return self.table(self.scores(rows), rows.index)

    def table(self, scores: np.ndarray, index: Any = None) -> pd.DataFrame:
        """Returns scores (see `scores`) as a DataFrame of prediction columns."""
        columns = format_predictions(self.info, scores)
        return pd.DataFrame({n: list(v) if v.ndim > 1 else v for n, v in columns.items()}, index=index)


def format_predictions(info: BundleInfo, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Returns scores (see `BundleModel.scores`) as prediction columns: name -> values (B,), probabilities as float64.

    The one column of a custom task is (B, *output_shape), or (B,) of an output of one number.
    """
    names = info.score_names
    if info.output_shape:
        shape = info.output_shape if info.outputs > 1 else []
        return {names[0]: scores.reshape(-1, *shape).astype("float64")}
    columns: dict[str, np.ndarray] = {name: scores[:, i].astype("float64") for i, name in enumerate(names)}
    if not info.classes:
        choices = TASKS[info.task].choices(info.targets)
        return {name: (scores[:, i] >= 0.5).astype("int64") for i, name in enumerate(choices)} | columns
    classes = np.asarray(info.classes, dtype=object if isinstance(info.classes[0], str) else None)
    chosen = (scores[:, 0] >= 0.5).astype(int) if len(names) == 1 else scores.argmax(axis=1)
    return {"prediction": classes[chosen], **columns}


def reordered(scores: np.ndarray, info: BundleInfo, classes: Sequence[Any]) -> np.ndarray:
    """Returns a model's scores with the classes in the order of `classes`; unchanged if the sets of classes differ."""
    if [str(c) for c in info.classes] == [str(c) for c in classes] or not same_classes(info.classes, classes):
        return scores
    return 1 - scores if info.task == "binary" else scores[:, places(info.classes, classes)]


def check_if_saved_model(folder: Path) -> None:
    """Raises UserError if the folder holds a SavedModel with operations beyond pure computation."""
    if any(folder.glob("saved_model*")):
        from switchyard.components.bundle.saved_model_check import check_saved_model

        check_saved_model(folder)


def load_bundle(
    folder: str | Path,
    digest: str | None = None,
    *,
    verified: bool = False,
    predictor_class: PredictorClass | None = None,
) -> BundleModel:
    """Returns the bundle of an MLflow Model directory, without MLflow's own validation of inputs.

    Args:
        folder: folder of the MLflow Model.
        digest: required digest of the manifest, from the registry or the run that made the bundle; None only checks the files
            against the manifest.
        verified: whether the caller has checked the digest.
        predictor_class: see `BundleModel`.

    Raises:
        UserError: the files do not match the manifest, or are not a valid bundle.
    """
    verify(Path(folder), digest)
    inner = Path(folder) / "artifacts" / bundle_folder(folder)
    return BundleModel(inner, verified=verified or digest is not None, predictor_class=predictor_class)


def bundle_path(uri: str | Path) -> Path:
    """Returns the MLflow Model's folder in a TFX Model artifact; TFX's own components require the name."""
    return Path(uri) / "Format-Serving"


def bundle_info(folder: str | Path) -> BundleInfo:
    """Returns a bundle's metadata without loading the model."""
    return _read_info(Path(folder) / "artifacts" / bundle_folder(folder))


def training_data(folder: str | Path) -> Path:
    """Returns a bundle's folder with the training split's `statistics.pb`, `schema.pbtxt`, `dataset.json` and `rows.parquet`."""
    return Path(folder) / "artifacts" / bundle_folder(folder) / "data"


def example_rows(folder: str | Path) -> pd.DataFrame | None:
    """Returns a few rows of the model's training data, as input of `BundleModel.scores`; None for a bundle without rows."""
    file = training_data(folder) / ROWS
    return pd.read_parquet(file) if file.is_file() else None


def model_folders(inner: Path, info: BundleInfo) -> list[Path]:
    """Returns the folders with the `model/` and the `code/` of each of `info.models`, in the bundle's own folder `inner`."""
    return [inner / MEMBERS / str(i) for i in range(len(info.members))] or [inner]


def _read_info(folder: Path) -> BundleInfo:
    try:
        loaded = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except RecursionError:
        loaded = None
    if not isinstance(loaded, dict):
        raise UserError(f"model: {FILE} is not a JSON object: it was changed. Train again.")
    written = loaded.pop("format", 1)
    loaded.pop(POSITIVE_CLASS, None)  # written for readers of the file only: it is the last class
    if written != FORMAT:
        raise UserError(
            f"model: {FILE} has the format {written!r}, this version reads {FORMAT}. In format 1 column names are part of the "
            "exported code: train again."
        )
    try:
        members = [Member(**m) for m in loaded.get("members", [])]
        info = BundleInfo(**{**loaded, "features": [RawFeature(**f) for f in loaded["features"]], "members": members})
        TypeAdapter(BundleInfo).validate_json(json.dumps(loaded), strict=True)
        if problem := _problem(info):
            raise ValueError(problem)
    except (KeyError, TypeError, ValueError) as error:
        found = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, found['loc']))}: {found['msg']}" if found else str(error)[:300]
        raise UserError(f"model: {FILE} cannot be read ({reason}): it was changed, or a newer version made it.") from None
    return info


def _problem(info: BundleInfo) -> str:
    """Returns the first inconsistency in a bundle's metadata; empty if it is valid."""
    names = [f.name for f in info.features]
    if not names or len(set(names)) != len(names) or len(set(info.transformed)) != len(info.transformed):
        return "its features have missing or duplicate names"
    for feature in info.features:
        if feature.dtype not in ("float32", "int64", "string") or (feature.width is not None and feature.width < 1):
            return f"the feature {feature.name[:60]!r} is {feature.dtype[:20]!r} of width {feature.width}"
        if not _MEANING.fullmatch(feature.meaning):
            return f"the feature {feature.name[:60]!r} means {feature.meaning[:60]!r}"
    kinds, task = set(map(type, info.classes)), TASKS.get(info.task)
    one_kind = (kinds <= {str} or kinds <= {int}) and len(set(info.classes)) == len(info.classes)
    if not (task and task.fits(len(info.classes)) and one_kind):
        return f"the task {info.task[:20]!r} has the classes {str(info.classes)[:60]}"
    if not (task.fits_targets(info.targets) and task.fits_shape(info.output_shape)):
        what = (
            f"targets {str(info.targets)[:60]}" if not task.fits_targets(info.targets) else f"shape {str(info.output_shape)[:60]}"
        )
        return f"the task {info.task[:20]!r} has the {what}"
    return problem_of_members(info.members)


def bundle_folder(folder: str | Path) -> str:
    """Returns the name of the artifact folder that holds the bundle."""
    names = os.listdir(Path(folder) / "artifacts")
    if len(names) != 1:
        raise FileNotFoundError(f"{folder} is not a model bundle: artifacts contains {names}")
    return names[0]
