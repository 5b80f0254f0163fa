"""Exports a TensorFlow bundle for TensorFlow Serving: a SavedModel from raw features to `prediction` and probabilities.

It combines the transform graph and the model under the signature `serving_default`; inputs have the names of the raw features.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from switchyard.components.bundle.model import BundleInfo, RawFeature, bundle_folder, bundle_info, check_if_saved_model
from switchyard.components.compat import tensorflow_globs
from switchyard.components.errors import UserError
from switchyard.components.tasks import TASKS
from switchyard.components.tracking.manifest import verify
from switchyard.components.training.positional import load_names, positional
from switchyard.components.values.cells import number_of

# Names that a SavedModel's signature keeps unchanged.
_NAME = r"[A-Za-z][A-Za-z0-9_]*"


def export_for_tensorflow_serving(model: Path, target: Path, *, verified: bool) -> None:
    """Writes the SavedModel.

    An optional feature is missing if it is NaN (optional numbers are float64), an empty text, or one of `data.missing_values`.
    Booleans, dates and times are numbers, see `docs/data.md`.

    Args:
        model: folder of the MLflow Model.
        target: folder `NAME/VERSION` to create; TensorFlow Serving requires VERSION to be a number.
        verified: whether the bundle's digest matches the registered one; if not, the graphs may hold only pure computation.

    Raises:
        UserError: another framework trained the model, or a feature cannot be a plain tensor.
    """
    info = bundle_info(model)
    if info.framework != "tensorflow":
        raise UserError(f"--target tf-serving: TensorFlow Serving does not run {info.framework} models; use --target kserve.")
    if info.tokenizer:
        raise UserError("--target tf-serving: TensorFlow Serving does not run the model's tokenizer; use --target kserve.")
    for feature in info.features:
        if not re.fullmatch(_NAME, feature.name):
            raise UserError(f"--target tf-serving: the column {feature.name!r} cannot be an input's name; use --target kserve.")
        if feature.width is None and feature.is_list:
            raise UserError(
                f"--target tf-serving: column {feature.name!r} holds lists of any length, which are not a tensor; use "
                "--target kserve."
            )
    import tensorflow as tf

    tensorflow_globs.install()
    verify(model)
    folder = model / "artifacts" / bundle_folder(model)
    if not (verified and info.user_code):
        for place in (folder / "preprocess", folder / "model"):
            check_if_saved_model(place)
    module = _module(folder, info)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        tf.saved_model.save(module, str(draft), signatures={"serving_default": module.serve})
        # TensorFlow Serving polls the folder: a version must appear complete.
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _module(folder: Path, info: BundleInfo) -> Any:
    import tensorflow as tf

    specs = {f.name: _spec(f) for f in info.features}
    names = load_names(folder / "model")

    class Served(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.preprocess = tf.saved_model.load(str(folder / "preprocess"))
            self.model = tf.saved_model.load(str(folder / "model"))

        @tf.function(input_signature=[specs])
        def serve(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            tensors: dict[str, tf.Tensor] = {}
            for i, feature in enumerate(info.features):
                value = features[feature.name]
                if feature.width is not None:
                    tensors[f"f{i}"] = tf.reshape(value, [-1, feature.width])
                    continue
                present = _present(feature, value)
                kept = tf.boolean_mask(value, present)
                tensors[f"f{i}"] = kept if feature.dtype == "string" else tf.cast(kept, feature.dtype)
                tensors[f"f{i}_lengths"] = tf.cast(present, tf.int64)
            outputs = self.preprocess.transform(tensors)
            transformed = {name: outputs[f"t{i}"] for i, name in enumerate(info.transformed)}
            return _outputs(info, tf.cast(self.model.serve(positional(transformed, names)), tf.float64))

    return Served()


def _present(feature: RawFeature, value: Any) -> Any:
    import tensorflow as tf

    if feature.dtype != "string":
        present = ~tf.math.is_nan(value)
        for number in map(number_of, feature.missing):
            present &= True if number is None else value != number
        return present
    present, trimmed = tf.strings.length(value) > 0, tf.strings.strip(value)
    for text in filter(None, feature.missing):
        present &= value != text
        present &= trimmed != text.strip() if text.strip() else True
    return present


def _spec(feature: RawFeature) -> Any:
    import tensorflow as tf

    dtype = "float64" if feature.width is None and feature.dtype != "string" else feature.dtype
    return tf.TensorSpec([None] if (feature.width or 1) == 1 else [None, feature.width], dtype, feature.name)


def _outputs(info: BundleInfo, scores: Any) -> dict[str, Any]:
    """Returns the outputs by the rules of `switchyard.components.bundle.model.format_predictions`."""
    import tensorflow as tf

    if TASKS[info.task].ascending:
        scores = tf.sort(scores, axis=1)
    if info.output_shape:
        return {info.score_names[0]: tf.reshape(scores, [-1, *(info.output_shape if info.outputs > 1 else ())])}
    if not info.classes:
        choices = TASKS[info.task].choices(info.targets)
        chosen = {name: tf.cast(scores[:, i] >= 0.5, tf.int64) for i, name in enumerate(choices)}
        return chosen | {name: scores[:, i] for i, name in enumerate(info.score_names)}
    classes = tf.constant(info.classes)
    if len(info.score_names) == 1:
        chosen = tf.cast(scores[:, 0] >= 0.5, tf.int32)
        return {"prediction": tf.gather(classes, chosen), "probability": scores[:, 0]}
    return {"prediction": tf.gather(classes, tf.argmax(scores, axis=1)), "probabilities": scores}
