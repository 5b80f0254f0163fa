"""A small convolutional network in PyTorch; `keras_model.py` is the same network in Keras."""

from torch import nn


class Digits(nn.Module):
    """Image -> logits, (B, 8, 8, 1) -> (B, outputs)."""

    def __init__(self, filters, outputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, filters, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(filters, 2 * filters, 3, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(2 * filters * 4 * 4, outputs),
        )

    def forward(self, features):
        # PyTorch wants the channel first.
        return self.layers(features["image"].permute(0, 3, 1, 2))


def build_model(spec):
    """Returns the network for the spec."""
    return Digits(spec.parameters["filters"], spec.outputs)
