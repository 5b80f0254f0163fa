"""User code of the stock pipeline for any columns: every number a z-score, every text an index, as `module.py` for the trips."""

import tensorflow as tf
import tensorflow_transform as tft

_LABEL, _BATCH = "tipped", 64


def preprocessing_fn(inputs):
    """Returns the transformed features and the label, each (B, 1)."""
    found = {_LABEL: inputs[_LABEL]}
    for name, value in inputs.items():
        if name == _LABEL:
            continue
        if isinstance(value, tf.SparseTensor):
            default = "" if value.dtype == tf.string else 0
            dense = tf.sparse.to_dense(tf.SparseTensor(value.indices, value.values, [value.dense_shape[0], 1]), default)
        else:
            dense = value
        if dense.dtype == tf.string:
            found[name] = tft.compute_and_apply_vocabulary(dense, num_oov_buckets=1, vocab_filename=name)
        else:
            found[name] = tft.scale_to_z_score(tf.cast(dense, tf.float32))
    return found


def run_fn(fn_args):
    """Trains and exports a SavedModel that takes serialized raw examples."""
    from tfx_bsl.public import tfxio

    keras, layers = tf.keras, tf.keras.layers
    keras.utils.set_random_seed(42)
    graph = tft.TFTransformOutput(fn_args.transform_output)
    options = tfxio.TensorFlowDatasetOptions(batch_size=_BATCH, label_key=_LABEL)
    data, evaluated = (
        fn_args.data_accessor.tf_dataset_factory(files, options, graph.transformed_metadata.schema)
        for files in (fn_args.train_files, fn_args.eval_files)
    )
    spec = graph.transformed_feature_spec()
    spec.pop(_LABEL)
    inputs = {name: keras.Input((1,), dtype=each.dtype, name=name) for name, each in spec.items()}
    parts = [value for name, value in inputs.items() if spec[name].dtype == tf.float32]
    parts += [
        layers.Flatten()(layers.Embedding(graph.vocabulary_size_by_name(name) + 1, 8)(value))
        for name, value in inputs.items()
        if spec[name].dtype != tf.float32
    ]
    hidden = layers.Dense(32, activation="relu")(layers.Dense(64, activation="relu")(layers.Concatenate()(parts)))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    metrics = [keras.metrics.AUC(from_logits=True)]
    model.compile(keras.optimizers.Adam(0.001), keras.losses.BinaryCrossentropy(from_logits=True), metrics=metrics)
    model.fit(
        data, steps_per_epoch=fn_args.train_steps, validation_data=evaluated, validation_steps=fn_args.eval_steps, verbose=2
    )
    layer = graph.transform_features_layer()
    raw = graph.raw_feature_spec()
    raw.pop(_LABEL)

    class Serving(tf.Module):
        def __init__(self):
            super().__init__()
            self.model, self.layer = model, layer

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples):
            transformed = self.layer(tf.io.parse_example(examples, raw))
            transformed.pop(_LABEL, None)
            return {"outputs": tf.sigmoid(self.model(transformed))}

    serving = Serving()
    tf.saved_model.save(serving, fn_args.serving_model_dir, signatures={"serving_default": serving.serve})
