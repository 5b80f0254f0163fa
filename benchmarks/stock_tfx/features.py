"""The preprocessing of both sides: z-scores, and indices into vocabularies with one bucket for what is not in them."""

import tensorflow_transform as tft

NUMBERS = ("miles", "fare", "seconds", "hour")
WORDS = ("payment", "company")


def preprocessing_fn(inputs):
    """Returns the transformed features, each (B, 1)."""
    found = {name: tft.scale_to_z_score(inputs[name]) for name in NUMBERS}
    words = {name: tft.compute_and_apply_vocabulary(inputs[name], num_oov_buckets=1, vocab_filename=name) for name in WORDS}
    return found | words
