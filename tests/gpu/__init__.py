"""Training on NVIDIA GPUs."""
