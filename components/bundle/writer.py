"""Writes a model bundle (see `model.py`): from a transform graph and a trainer's export, or an ensemble from other bundles."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import mlflow.pyfunc
import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array

from switchyard.components.bundle.code import FOLDER as CODE
from switchyard.components.bundle.members import FOLDER as MEMBERS
from switchyard.components.bundle.members import Member
from switchyard.components.bundle.model import FILE, ROWS, BundleInfo, bundle_folder, bundle_info, model_folders
from switchyard.components.data.class_order import KEY as POSITIVE_CLASS
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import StageError
from switchyard.components.tasks import TASKS
from switchyard.components.tracking.manifest import FORMAT, write_manifest
from switchyard.components.user_code.constraints import canonical, public
from switchyard.components.user_code.dependencies import requirements
from switchyard.components.user_code.tokenizer import FOLDER as TOKENIZER
from switchyard.components.values.raw_features import RawFeature, raw_feature
from switchyard.components.values.spelling import BOOLEAN, TIME, TIMESTAMP

_log = logging.getLogger(__name__)

EXAMPLE_ROWS = 5
# Framework -> the package that its predictor needs, besides those of every bundle.
_PACKAGES = {"pytorch": "torch", "lightgbm": "lightgbm"}
# Predictor -> its place among an ensemble's; 1 for others.
_LOADED = {"pytorch": 0, "tensorflow": 2}
# MLflow copies this file. Its location comes from the package: this module's `__file__` may be behind a link.
_SERVE = Path(str(sys.modules["switchyard"].__file__)).with_name("mlflow_model.py")


def raw_features(feature_spec: Mapping[str, Any], summary: DatasetSummary) -> list[RawFeature]:
    """Returns the raw features of a transform graph's `raw_feature_spec()`, without the label and the sample weights.

    Args:
        feature_spec: name -> TensorFlow's spec.
        summary: summary of the training data.
    """
    found = []
    for name, spec in sorted(feature_spec.items()):
        if name not in summary.no_features:
            shape = getattr(spec, "shape", None)  # VarLenFeature has none
            width = None if shape is None else int(np.prod(shape, dtype=int))
            found.append(raw_feature(name, summary, spec.dtype.name, width))
    return found


def save_bundle(
    target: Path,
    *,
    info: BundleInfo,
    transform_graph: str,
    export_dir: Path,
    rows: pd.DataFrame,
    code: Mapping[str, Path],
    data: Mapping[str, Path],
    tokenizer: Path | None = None,
    dependencies: Sequence[str] = (),
) -> str:
    """Writes the MLflow Model and returns the digest of its manifest.

    Args:
        target: folder to write; replaced if it exists.
        info: metadata for `bundle.json`; the names of the transformed features are added.
        transform_graph: URI of TFX's TransformGraph artifact.
        export_dir: folder of the trainer's export; moved into the bundle.
        rows: a few raw rows without the label, to warm up servers; the first ones are MLflow's input example.
        code: name -> file of the user's trainer.
        data: name -> file that later data is compared with; see `training_data`.
        tokenizer: folder of the user's tokenizer, copied into the bundle.
        dependencies: the config's `dependencies`.
    """
    work = _new_work(target)
    info = dataclasses.replace(info, transformed=_save_preprocess(str(work / "preprocess"), info, transform_graph))
    shutil.move(str(export_dir), work / "model")
    for name, file in code.items():
        copy = work / CODE / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    if tokenizer:
        shutil.copytree(tokenizer, work / TOKENIZER, ignore=shutil.ignore_patterns("__pycache__"))
    (work / "data").mkdir()
    for name, file in data.items():
        shutil.copyfile(file, work / "data" / name)
    rows.to_parquet(work / "data" / ROWS, index=False)
    return _write(target, work, info, rows, dependencies)


def save_ensemble(target: Path, name: str, members: Sequence[tuple[Path, float]], dependencies: Sequence[str] = ()) -> str:
    """Writes the MLflow Model of an ensemble and returns the digest of its manifest.

    Args:
        target: folder to write; replaced if it exists.
        name: its `BundleInfo.framework`.
        members: the verified MLflow Model of each member, all of one transform graph, and its weight.
        dependencies: the config's `dependencies`.

    Raises:
        StageError: the members are not of one task, label or transform graph.
    """
    # The frameworks' predictors are imported in this order: PyTorch before TensorFlow, with those of users in between.
    ordered = sorted(members, key=lambda m: _LOADED.get(bundle_info(m[0]).predictor, 1))
    infos = [bundle_info(folder) for folder, _ in ordered]
    places = [folder / "artifacts" / bundle_folder(folder) for folder, _ in ordered]
    common = [dataclasses.replace(info, framework=name, predictor=name, user_code=False) for info in infos]
    if any(info != common[0] for info in common):
        raise StageError(f"{name}: its members ({', '.join(i.framework for i in infos)}) are of different data; train them again")
    work = _new_work(target)
    for part in ("preprocess", "data", TOKENIZER):
        if (places[0] / part).is_dir():
            shutil.copytree(places[0] / part, work / part)
    for number, place in enumerate(places):
        for part in ("model", CODE):
            if (place / part).is_dir():
                shutil.copytree(place / part, work / MEMBERS / str(number) / part)
    found = [Member(i.framework, i.predictor, weight) for i, (_, weight) in zip(infos, ordered, strict=True)]
    info = dataclasses.replace(common[0], members=found, user_code=any(i.user_code for i in infos))
    return _write(target, work, info, pd.read_parquet(work / "data" / ROWS), dependencies)


def _new_work(target: Path) -> Path:
    work = target.with_name(f"{target.name}.parts")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def _write(target: Path, work: Path, info: BundleInfo, rows: pd.DataFrame, dependencies: Sequence[str]) -> str:
    """Writes the MLflow Model with the content of `work`, which is removed, and returns the digest of its manifest."""
    content = {"format": FORMAT, **dataclasses.asdict(info), POSITIVE_CLASS: info.positive_class}
    (work / FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    settings: dict[str, Any] = {
        "path": str(target),
        "python_model": str(_SERVE),
        # A URI: in a path MLflow would decode percent escapes.
        "artifacts": {"bundle": work.absolute().as_uri()},
        "signature": signature(info),
        "pip_requirements": _requirements(
            info, requirements([*(place / CODE for place in model_folders(work, info)), work / TOKENIZER], dependencies)
        ),
    }
    try:
        mlflow.pyfunc.save_model(**settings, input_example=_plain(rows.head(EXAMPLE_ROWS), info))
    except MlflowException:
        # An example that MLflow rejects must not lose the trained model.
        _log.warning("the model is saved without an input example", exc_info=True)
        shutil.rmtree(target, ignore_errors=True)
        mlflow.pyfunc.save_model(**settings)
    shutil.rmtree(work)
    _without_places(target)
    return write_manifest(target)


def _without_places(folder: Path) -> None:
    """Removes the paths of this machine from an MLflow Model: its readers would see them, and its digest depend on them."""
    file = folder / MLMODEL_FILE_NAME
    model = Model.from_dict(yaml.safe_load(file.read_text(encoding="utf-8")))  # `Model.load` takes a path with a # for an address
    described = model.flavors[mlflow.pyfunc.FLAVOR_NAME]
    described["model_code_path"] = _SERVE.name  # MLflow reads the name alone
    for artifact in described["artifacts"].values():
        artifact["uri"] = artifact["path"]
    model.save(str(file))


def _plain(rows: pd.DataFrame, info: BundleInfo) -> pd.DataFrame:
    """Returns rows in the types that clients send: texts, bytes, floats, lists of floats."""
    columns: dict[str, Any] = {}
    for feature in info.features:
        values = rows[feature.name]
        if feature.is_bytes:
            columns[feature.name] = list(values)
        elif feature.dtype == "string":
            columns[feature.name] = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
        elif (feature.width or 1) > 1 or feature.is_list:
            columns[feature.name] = [None if v is None else np.asarray(v, dtype=np.float64) for v in values]
        else:
            columns[feature.name] = pd.to_numeric(values).astype(np.float64)
    return pd.DataFrame(columns)


def signature(info: BundleInfo) -> ModelSignature:
    """Returns MLflow's signature of a bundle.

    Numbers are declared as double: JSON has no float32, and a missing integer is NaN in pandas. Booleans, dates and times are
    declared as any type, because the bundle accepts several types for them.
    """
    inputs = []
    for f in info.features:
        kind: Any = DataType.double if f.dtype != "string" else DataType.binary if f.is_bytes else DataType.string
        if f.meaning.partition("[")[0] in (BOOLEAN, TIMESTAMP, TIME) and not f.is_list:
            kind = AnyType()
        inputs.append(ColSpec(Array(kind) if (f.width or 1) > 1 or f.is_list else kind, f.name, required=f.width is not None))
    choices = TASKS[info.task].choices(info.targets)
    score: Any = DataType.double
    for _ in info.output_shape if info.outputs > 1 else ():
        score = Array(score)
    outputs = [*(ColSpec(DataType.long, n) for n in choices), *(ColSpec(score, n) for n in info.score_names)]
    if info.classes:
        kind = DataType.string if isinstance(info.classes[0], str) else DataType.long
        outputs.insert(0, ColSpec(kind, "prediction"))
    return ModelSignature(Schema(inputs), Schema(cast(Any, outputs)))


def _save_preprocess(path: str, info: BundleInfo, transform_graph: str) -> list[str]:
    """Saves the transform graph with positional inputs and outputs; returns the names of the transformed features."""
    import tensorflow as tf
    import tensorflow_transform as tft

    from switchyard.components.bundle.transform_graph import transform_function

    graph = tft.TFTransformOutput(transform_graph)
    specs: dict[str, tf.TensorSpec] = {}
    for i, f in enumerate(info.features):
        if f.width is None:
            specs[f"f{i}"] = tf.TensorSpec([None], f.dtype, f"f{i}")
            specs[f"f{i}_lengths"] = tf.TensorSpec([None], "int64", f"f{i}_lengths")
        else:
            specs[f"f{i}"] = tf.TensorSpec([None, f.width], f.dtype, f"f{i}")
    names = sorted(name for name in graph.transformed_feature_spec() if name not in (info.label, info.sample_weight))
    shapes = {name: tuple(getattr(spec, "shape", ())) for name, spec in graph.raw_feature_spec().items()}

    tracked, transform = transform_function(graph.transform_savedmodel_dir)

    class Preprocess(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tracked, self._transform = tracked, transform

        @tf.function(input_signature=[specs], autograph=False)
        def transform(self, tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            features: dict[str, Any] = {}
            for i, f in enumerate(info.features):
                value = tensors[f"f{i}"]
                if f.width is None:
                    features[f.name] = tf.RaggedTensor.from_row_lengths(value, tensors[f"f{i}_lengths"]).to_sparse()
                else:
                    features[f.name] = tf.reshape(value, [-1, *shapes[f.name]])
            outputs = self._transform(features)
            # Trainers expect a scalar feature as a column (B, 1).
            values = [outputs[name] for name in names]
            return {f"t{i}": v[:, tf.newaxis] if v.shape.rank == 1 else v for i, v in enumerate(values)}

    tf.saved_model.save(Preprocess(), path)
    return names


def _requirements(info: BundleInfo, of_code: Mapping[str, str]) -> list[str]:
    """Returns MLflow's `pip_requirements`: what loads a bundle, and what the user's code needs, name -> version."""
    own = [_PACKAGES[model.name] for model in info.models if model.name in _PACKAGES]
    own += ["pillow"] if any(f.image for f in info.features) else []
    packages = ["switchyard", "mlflow", "numpy", "pandas", "tensorflow", "tensorflow-transform", *own]
    listed = set(map(canonical, packages))
    pins = {canonical(p): version for p, version in of_code.items()}
    own_code = [f"{p}=={version}" for p, version in of_code.items() if canonical(p) not in listed]
    return [*(f"{p}=={pins.get(p) or public(metadata.version(p))}" for p in packages), *own_code]
