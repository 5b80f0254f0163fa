"""User code of the taxi pipeline: preprocessing_fn and run_fn."""

import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    outputs = {name: tft.scale_to_z_score(tf.squeeze(inputs[name], 1)) for name in ("miles", "fare")}
    outputs["payment"] = tft.compute_and_apply_vocabulary(tf.squeeze(inputs["payment"], 1))
    outputs["tipped"] = tf.squeeze(inputs["tipped"], 1)
    return outputs


def _dataset(files, graph, batch=64):
    data = tf.data.TFRecordDataset(tf.io.gfile.glob(files), compression_type="GZIP").batch(batch).repeat()
    spec = graph.transformed_feature_spec()

    def split(records):
        features = tf.io.parse_example(records, spec)
        label = features.pop("tipped")
        return features, label

    return data.map(split)


def run_fn(fn_args):
    tf.keras.utils.set_random_seed(1)
    graph = tft.TFTransformOutput(fn_args.transform_output)
    inputs = {name: tf.keras.Input((), name=name) for name in ("miles", "fare")}
    inputs["payment"] = tf.keras.Input((), dtype="int64", name="payment")
    parts = [tf.keras.layers.Reshape((1,))(inputs[n]) for n in ("miles", "fare")]
    parts.append(tf.keras.layers.Embedding(5, 2)(inputs["payment"]))
    hidden = tf.keras.layers.Dense(8, activation="relu")(tf.keras.layers.Concatenate()(parts))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(tf.keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(
        _dataset(fn_args.train_files, graph),
        steps_per_epoch=fn_args.train_steps,
        validation_data=_dataset(fn_args.eval_files, graph),
        validation_steps=fn_args.eval_steps,
        verbose=2,
    )
    layer = graph.transform_features_layer()
    raw = graph.raw_feature_spec()
    raw.pop("tipped")

    class Serving(tf.Module):
        def __init__(self):
            super().__init__()
            self.model, self.layer = model, layer

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def __call__(self, examples):
            features = self.layer(tf.io.parse_example(examples, raw))
            features.pop("tipped", None)
            return {"outputs": self.model(features)}

    serving = Serving()
    tf.saved_model.save(serving, fn_args.serving_model_dir, signatures={"serving_default": serving.__call__})
