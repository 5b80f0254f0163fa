"""The one format a trained model takes: an MLflow Model directory with raw features in and predictions out.

Inside: `preprocess/` (the transform graph without the label, a SavedModel), `model/` (what the trainer exported), `data/`
(statistics and schema of the training split, for drift) and `bundle.json`. Evaluation, batch prediction, the registry and
serving know nothing else of a model. No pickle: MLflow's models-from-code loads `serve_model.py`, which loads the parts.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from components.errors import UserError

_log = logging.getLogger(__name__)

_FILE = "bundle.json"
_SERVE = Path(__file__).with_name("serve_model.py")


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
class BundleInfo:
    """What `bundle.json` holds.

    Attributes:
        framework: the trainer's name.
        predictor: `package.module:Class` of the trainer; for a user's own file, relative to the bundle's `code/`.
        task: binary, multiclass or regression.
        label: the label's column.
        classes: label values in the order of the model's outputs; empty for a regression.
        features: raw features.
    """

    framework: str
    predictor: str
    task: str
    label: str
    classes: list[Any]
    features: list[RawFeature]


class BundleModel:
    """A loaded bundle: raw features as a DataFrame in, predictions as arrays or a DataFrame out."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.info = _read_info(folder)
        # The trainer's framework first: PyTorch must come into the process before TensorFlow.
        trainer = _load_trainer(folder, self.info.predictor)
        self._predict = trainer.load_predictor(folder / "model")
        import tensorflow as tf

        self._tf = tf
        self._preprocess = tf.saved_model.load(str(folder / "preprocess"))

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Returns float32 (B, outputs): probability of the last class, of each class, or the value.

        Args:
            rows: one column per raw feature; missing is None or NaN.

        Raises:
            UserError: a column is missing or its values do not fit.
        """
        tensors = {}
        for i, feature in enumerate(self.info.features):
            tensors.update(self._tensors(f"f{i}", feature, rows))
        transformed = {k: v.numpy() for k, v in self._preprocess.transform(tensors).items()}
        return np.asarray(self._predict(transformed), dtype=np.float32)

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Returns `prediction` and, for classes, the probabilities, one row per input row."""
        return self.table(self.scores(rows), rows.index)

    def table(self, scores: np.ndarray, index: Any = None) -> pd.DataFrame:
        """Returns scores (see `scores`) as the columns that a user sees."""
        info = self.info
        if info.task == "regression":
            return pd.DataFrame({"prediction": scores[:, 0].astype("float64")}, index=index)
        classes = np.asarray(info.classes, dtype=object if isinstance(info.classes[0], str) else None)
        if info.task == "binary":
            chosen = classes[(scores[:, 0] >= 0.5).astype(int)]
            return pd.DataFrame({"prediction": chosen, "probability": scores[:, 0].astype("float64")}, index=index)
        columns: dict[str, Any] = {"prediction": classes[scores.argmax(axis=1)]}
        columns |= {f"probability_{c}": scores[:, i].astype("float64") for i, c in enumerate(info.classes)}
        return pd.DataFrame(columns, index=index)

    def _tensors(self, key: str, feature: RawFeature, rows: pd.DataFrame) -> dict[str, Any]:
        tf = self._tf
        if feature.name not in rows.columns:
            if feature.width is not None:
                raise UserError(f"column {feature.name!r} is missing. Columns needed: {', '.join(self._names())}.")
            present = np.zeros(len(rows), dtype=bool)
            column = pd.Series([None] * len(rows), index=rows.index, dtype=object)
        else:
            column = rows[feature.name]
            present = column.notna().to_numpy()
        if feature.width is not None:
            if not present.all():
                raise UserError(f"column {feature.name!r} must not be missing: it had a value in every training row.")
            values = np.stack(list(column)) if feature.width > 1 else column.to_numpy()
            return {key: tf.constant(_cast(feature, values).reshape(len(rows), feature.width))}
        values, lengths = column.to_numpy()[present], present.astype(np.int64)
        if feature.is_list and len(values):
            lists = [np.atleast_1d(v) for v in values]
            lengths[present] = [len(v) for v in lists]
            values = np.concatenate(lists)
        return {key: tf.constant(_cast(feature, values), feature.dtype), f"{key}_lengths": tf.constant(lengths)}

    def _names(self) -> list[str]:
        return [f.name for f in self.info.features]


def _cast(feature: RawFeature, values: np.ndarray) -> np.ndarray:
    try:
        if feature.dtype == "string":
            return np.asarray([v if isinstance(v, bytes) else str(v).encode() for v in values.ravel()], dtype=object)
        return values.astype(np.float64).astype(feature.dtype)
    except (TypeError, ValueError) as error:
        raise UserError(f"column {feature.name!r} must hold numbers: {error}") from None


def _load_trainer(folder: Path, predictor: str) -> Any:
    module, _, name = predictor.partition(":")
    if module.endswith(".py"):
        from components.user_code import load_function

        return load_function(str(folder / "code" / module), name)
    return getattr(importlib.import_module(module), name)


class PyfuncModel(mlflow.pyfunc.PythonModel):
    """What MLflow serves: a BundleModel behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Loads the bundle that lies in the MLflow Model."""
        self.bundle = BundleModel(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """See `BundleModel.predict`."""
        return self.bundle.predict(model_input)


def raw_features(feature_spec: Mapping[str, Any], columns: Mapping[str, str], label: str) -> list[RawFeature]:
    """Returns the raw features of a transform graph's `raw_feature_spec()`, without the label.

    Args:
        feature_spec: name -> TensorFlow's spec.
        columns: name -> type, as `DatasetSummary` has them.
        label: its name.
    """
    found = []
    for name, spec in sorted(feature_spec.items()):
        if name != label:
            shape = getattr(spec, "shape", None)  # VarLenFeature has none
            width = None if shape is None else int(np.prod(shape, dtype=int))
            found.append(RawFeature(name, spec.dtype.name, width, width is None and columns.get(name, "").startswith("list")))
    return found


def save_bundle(
    target: Path,
    *,
    info: BundleInfo,
    transform_graph: str,
    export_dir: Path,
    example: pd.DataFrame,
    code: Path | None,
    data: Mapping[str, Path],
) -> None:
    """Writes the MLflow Model.

    Args:
        target: a folder that is not there yet.
        info: goes into `bundle.json`.
        transform_graph: URI of TFX's TransformGraph artifact.
        export_dir: what the trainer exported; moved into the bundle.
        example: a few raw rows without the label.
        code: folder of the user's trainer when it is not an installed package.
        data: name -> file, what later data is compared with; see `training_data`.
    """
    work = target.with_name(f"{target.name}.parts")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _save_preprocess(str(work / "preprocess"), info, transform_graph)
    shutil.move(str(export_dir), work / "model")
    if code:
        shutil.copytree(code, work / "code", ignore=shutil.ignore_patterns("__pycache__"))
    (work / "data").mkdir()
    for name, file in data.items():
        shutil.copyfile(file, work / "data" / name)
    (work / _FILE).write_text(json.dumps(dataclasses.asdict(info), indent=1), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    settings: dict[str, Any] = {
        "path": str(target),
        "python_model": str(_SERVE),
        "artifacts": {"bundle": str(work)},
        "signature": signature(info),
        "pip_requirements": _requirements(info.framework),
    }
    try:
        mlflow.pyfunc.save_model(**settings, input_example=_plain(example, info))
    except MlflowException:
        # An example that MLflow does not take must not cost the trained model.
        _log.warning("the model is saved without an input example", exc_info=True)
        shutil.rmtree(target, ignore_errors=True)
        mlflow.pyfunc.save_model(**settings)
    shutil.rmtree(work)


def _plain(rows: pd.DataFrame, info: BundleInfo) -> pd.DataFrame:
    """Rows as a user would send them: texts, floats, lists of floats."""
    columns: dict[str, Any] = {}
    for feature in info.features:
        values = rows[feature.name]
        if feature.dtype == "string":
            columns[feature.name] = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
        elif (feature.width or 1) > 1 or feature.is_list:
            columns[feature.name] = [None if v is None else np.asarray(v, dtype=np.float64) for v in values]
        else:
            columns[feature.name] = pd.to_numeric(values).astype(np.float64)
    return pd.DataFrame(columns)


def load_bundle(folder: str | Path) -> BundleModel:
    """Loads the bundle inside an MLflow Model directory, without MLflow's own checks of the input."""
    return BundleModel(Path(folder) / "artifacts" / bundle_folder(folder))


def bundle_info(folder: str | Path) -> BundleInfo:
    """Reads what a bundle says of itself, without loading the model."""
    return _read_info(Path(folder) / "artifacts" / bundle_folder(folder))


def training_data(folder: str | Path) -> Path:
    """Folder in a bundle with the training split's `statistics.pb`, `schema.pbtxt` and `dataset.json`."""
    return Path(folder) / "artifacts" / bundle_folder(folder) / "data"


def _read_info(folder: Path) -> BundleInfo:
    loaded = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return BundleInfo(**{**loaded, "features": [RawFeature(**f) for f in loaded["features"]]})


def bundle_folder(folder: str | Path) -> str:
    """Name of the artifact folder that holds the bundle."""
    names = os.listdir(Path(folder) / "artifacts")
    if len(names) != 1:
        raise FileNotFoundError(f"{folder} is not a model bundle: artifacts holds {names}")
    return names[0]


def signature(info: BundleInfo) -> ModelSignature:
    """Numbers are declared as double: JSON and pandas know no float32, and a missing integer is NaN."""
    inputs = []
    for f in info.features:
        kind: Any = DataType.string if f.dtype == "string" else DataType.double
        inputs.append(ColSpec(Array(kind) if (f.width or 1) > 1 or f.is_list else kind, f.name, required=f.width is not None))
    outputs: list[Any] = []
    if info.classes:
        kind = DataType.string if isinstance(info.classes[0], str) else DataType.long
        names = ["probability"] if info.task == "binary" else [f"probability_{c}" for c in info.classes]
        outputs = [ColSpec(kind, "prediction"), *(ColSpec(DataType.double, n) for n in names)]
    else:
        outputs = [ColSpec(DataType.double, "prediction")]
    return ModelSignature(Schema(inputs), Schema(cast(Any, outputs)))


def _save_preprocess(path: str, info: BundleInfo, transform_graph: str) -> None:
    import tensorflow as tf
    import tensorflow_transform as tft

    graph = tft.TFTransformOutput(transform_graph)
    specs: dict[str, tf.TensorSpec] = {}
    for i, f in enumerate(info.features):
        if f.width is None:
            specs[f"f{i}"] = tf.TensorSpec([None], f.dtype, f"f{i}")
            specs[f"f{i}_lengths"] = tf.TensorSpec([None], "int64", f"f{i}_lengths")
        else:
            specs[f"f{i}"] = tf.TensorSpec([None, f.width], f.dtype, f"f{i}")
    shapes = {name: tuple(getattr(spec, "shape", ())) for name, spec in graph.raw_feature_spec().items()}

    class Preprocess(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = graph.transform_features_layer()

        @tf.function(input_signature=[specs])
        def transform(self, tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            features: dict[str, Any] = {}
            for i, f in enumerate(info.features):
                value = tensors[f"f{i}"]
                if f.width is None:
                    features[f.name] = tf.RaggedTensor.from_row_lengths(value, tensors[f"f{i}_lengths"]).to_sparse()
                else:
                    features[f.name] = tf.reshape(value, [-1, *shapes[f.name]])
            outputs = self.layer(features)
            outputs.pop(info.label, None)
            # A scalar feature is a column, as trainers see it.
            return {k: v[:, tf.newaxis] if v.shape.rank == 1 else v for k, v in outputs.items()}

    tf.saved_model.save(Preprocess(), path)


def _requirements(framework: str) -> list[str]:
    packages = ["mlflow", "numpy", "pandas", "tensorflow", "tensorflow-transform", *(["torch"] if framework == "pytorch" else [])]
    return [f"{p}=={metadata.version(p)}" for p in packages]
