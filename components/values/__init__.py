"""One converter of values: what a raw value becomes, in training and serving alike."""
