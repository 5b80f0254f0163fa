"""The TensorFlow trainer and predictor."""
