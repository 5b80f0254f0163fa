"""A small bundle, made by hand in a second: one raw feature, doubled by the transform graph, a model that adds one."""

import json

import tensorflow as tf

from switchyard.components.tracking.manifest import FORMAT, write_manifest

FEATURE = 'a"'


def make_bundle(folder, *, transform=lambda x: 2 * x, predictor="tensorflow", code=None, **info):
    """Returns the digest of its manifest."""
    bundle = folder / "artifacts" / "bundle"

    class Preprocess(tf.Module):
        @tf.function(input_signature=[{"f0": tf.TensorSpec([None, 1], tf.float32)}])
        def transform(self, tensors):
            return {"t0": transform(tensors["f0"])}

    class Model(tf.Module):
        @tf.function(input_signature=[{"f0": tf.TensorSpec([None, 1], tf.float32)}])
        def serve(self, features):
            return features["f0"] + 1.0

    tf.saved_model.save(Preprocess(), str(bundle / "preprocess"))
    tf.saved_model.save(Model(), str(bundle / "model"))
    (bundle / "model" / "features.json").write_text(json.dumps([FEATURE]))
    for name, text in (code or {}).items():
        (bundle / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / "code" / name).write_text(text)
    document = {
        "format": FORMAT, "framework": predictor, "predictor": predictor, "task": "regression", "label": "y", "classes": [],
        "features": [{"name": FEATURE, "dtype": "float32", "width": 1, "is_list": False}], "transformed": [FEATURE],
        "user_code": False, **info,
    }  # fmt: skip
    (bundle / "bundle.json").write_text(json.dumps(document))
    (folder / "MLmodel").write_text("flavors: {}\n")
    return write_manifest(folder)
