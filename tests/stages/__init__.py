"""Stages, trainers and stores in one process: about TensorFlow, PyTorch, TFX, Beam or MLflow."""
