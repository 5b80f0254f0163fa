"""The TPU path without a TPU: PyTorch/XLA on its CPU device."""
