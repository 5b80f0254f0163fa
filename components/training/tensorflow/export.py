"""Writes a trained model as a SavedModel, and its weights by name. Mirrors `pytorch/export.py`."""

from __future__ import annotations

import keras
import tensorflow as tf

from switchyard.components.errors import UserError, first_line
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.positional import by_name, save_names
from switchyard.components.training.tensorflow.metrics import activated
from switchyard.components.training.tensorflow.start import save_weights


def export(model: keras.Model, request: TrainRequest) -> None:
    """Writes the model with its activation to the request's `export_dir`; `serve` takes features and returns float32 outputs.

    Raises:
        UserError: the model cannot be exported as a SavedModel.
    """
    names = [f.name for f in request.spec.features]
    signature = {f"f{i}": tf.TensorSpec((None, *f.shape), f.dtype, f"f{i}") for i, f in enumerate(request.spec.features)}
    archive = keras.export.ExportArchive()

    def serve(features: dict[str, tf.Tensor]) -> tf.Tensor:
        output = keras.ops.cast(model(by_name(features, names), training=False), "float32")
        served = keras.ops.cast(activated(output, request), "float32")
        return keras.ops.reshape(served, [-1, request.spec.outputs]) if request.spec.output_shape else served

    try:
        archive.track(model)
        archive.add_endpoint("serve", serve, input_signature=[signature])
        archive.write_out(str(request.export_dir), verbose=False)
    except Exception as error:
        raise UserError(
            f"trainer.model: the model cannot be exported as a SavedModel: {first_line(error)}. Keep Python control flow on "
            "tensor values, NumPy and files out of call()."
        ) from error
    save_names(request.export_dir, names)
    save_weights(model, request.export_dir)
