"""An autoencoder in PyTorch; `keras_model.py` is the same network in Keras."""

import torch
from torch import nn


class Autoencoder(nn.Module):
    """Readings -> the mean squared error of their reconstruction from a short code, (B, 1)."""

    def __init__(self, names, code):
        super().__init__()
        self.names = names
        width = len(names)
        self.layers = nn.Sequential(
            nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, code), nn.Linear(code, 16), nn.Tanh(), nn.Linear(16, width)
        )

    def forward(self, features):
        readings = torch.cat([features[name] for name in self.names], dim=1)
        return ((self.layers(readings) - readings) ** 2).mean(dim=1, keepdim=True)


def build_model(spec):
    """Returns the network for the spec."""
    return Autoencoder([feature.name for feature in spec.features], spec.parameters["code"])


def build_loss(spec):
    """Returns the loss of each row, which is the model's output; there are no labels."""
    return lambda labels, outputs: outputs[:, 0]
