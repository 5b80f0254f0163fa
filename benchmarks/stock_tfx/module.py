"""User code of the stock pipeline: `preprocessing_fn` and `run_fn`, in the manner of TFX's Keras tutorial."""

import features
import network
import tensorflow as tf
import tensorflow_transform as tft

_LABEL, _BATCH = "tipped", 64


def preprocessing_fn(inputs):
    """As Switchyard's, with the label."""
    return features.preprocessing_fn(inputs) | {_LABEL: inputs[_LABEL]}


def run_fn(fn_args):
    """Trains and exports a SavedModel that takes serialized raw examples."""
    tf.keras.utils.set_random_seed(42)
    graph = tft.TFTransformOutput(fn_args.transform_output)
    data, evaluated = (
        fn_args.data_accessor.tf_dataset_factory(files, _options(), graph.transformed_metadata.schema)
        for files in (fn_args.train_files, fn_args.eval_files)
    )
    sizes = {name: graph.vocabulary_size_by_name(name) + 1 for name in features.WORDS}
    model = network.network(sizes)
    metrics = [tf.keras.metrics.AUC(from_logits=True)]
    model.compile(tf.keras.optimizers.Adam(0.001), tf.keras.losses.BinaryCrossentropy(from_logits=True), metrics=metrics)
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


def _options():
    from tfx_bsl.public import tfxio

    return tfxio.TensorFlowDatasetOptions(batch_size=_BATCH, label_key=_LABEL)
