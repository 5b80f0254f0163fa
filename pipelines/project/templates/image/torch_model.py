"""The network in PyTorch; `keras_model.py` is the same one in Keras. Its sizes: `model_parameters` in pipeline.yaml."""

import math

import torch
from torch import nn


class Network(nn.Module):
    """Features -> logits, (B, outputs): convolutions over each picture, beside the other columns, then dense layers."""

    def __init__(self, features, filters, hidden, dropout, outputs):
        super().__init__()
        self.features = features
        # By position, since PyTorch refuses some characters that columns may have.
        self.embeddings, self.convolutions = nn.ModuleDict(), nn.ModuleDict()
        width = 0
        for i, feature in enumerate(features):
            size = math.prod(feature.shape)
            if feature.vocabulary_size:
                self.embeddings[str(i)] = nn.Embedding(feature.vocabulary_size, 8)
                nn.init.uniform_(self.embeddings[str(i)].weight, -0.05, 0.05)  # as in Keras
                size *= 8
            elif len(feature.shape) == 3:  # height, width, channels; values from 0 to 1
                self.convolutions[str(i)], size = convolutions(feature.shape, filters)
            width += size
        self.layers = nn.Sequential(
            initial(nn.Linear(width, hidden)), nn.ReLU(), nn.Dropout(dropout), initial(nn.Linear(hidden, outputs))
        )

    def forward(self, features):
        parts = []
        for i, feature in enumerate(self.features):
            value = features[feature.name]
            value = self.embeddings[str(i)](value) if feature.vocabulary_size else value.float()
            if str(i) in self.convolutions:
                value = self.convolutions[str(i)](value.permute(0, 3, 1, 2))  # PyTorch wants the channels first
            parts.append(value.flatten(1))
        return self.layers(torch.cat(parts, dim=1))


def build_model(spec):
    """Returns the network for the spec."""
    sizes = (spec.parameters[name] for name in ("filters", "hidden", "dropout"))
    return Network(spec.features, *sizes, spec.outputs)


def convolutions(shape, filters):
    """Returns the layers of a picture, each convolution followed by a halving, and the number of their outputs."""
    height, width, channels = shape
    layers = []
    while min(height, width) >= 8:
        layers += [initial(nn.Conv2d(channels, filters, 3, padding="same")), nn.ReLU(), nn.MaxPool2d(2)]
        height, width, channels, filters = height // 2, width // 2, filters, min(2 * filters, 128)
    return nn.Sequential(*layers), height * width * channels


def initial(layer):
    """Returns a layer with the initial weights of Keras."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
