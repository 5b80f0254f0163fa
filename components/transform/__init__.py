"""Transform: TFX's Transform with the user's `preprocessing_fn` or the default one; the label is encoded here."""
