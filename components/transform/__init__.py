"""The transform stage: TFX's Transform with the user's or the default `preprocessing_fn`; encodes the label."""
