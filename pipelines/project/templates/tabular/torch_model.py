"""The network in PyTorch; `keras_model.py` is the same one in Keras. Its sizes: `model_parameters` in pipeline.yaml."""

import math

import torch
from torch import nn


class Network(nn.Module):
    """Features -> logits, (B, outputs): embeddings of words beside the numbers, then dense layers."""

    def __init__(self, features, hidden, dropout, outputs):
        super().__init__()
        self.features = features
        self.embeddings = nn.ModuleDict()  # by position, since PyTorch refuses some characters that columns may have
        width = 0
        for i, feature in enumerate(features):
            size = math.prod(feature.shape)
            if feature.vocabulary_size:
                columns = embedding_width(feature.vocabulary_size)
                self.embeddings[str(i)] = nn.Embedding(feature.vocabulary_size, columns)
                nn.init.uniform_(self.embeddings[str(i)].weight, -0.05, 0.05)  # as in Keras
                size *= columns
            width += size
        layers = []
        for wide in hidden:
            layers += [dense(width, wide), nn.ReLU(), nn.Dropout(dropout)]
            width = wide
        self.layers = nn.Sequential(*layers, dense(width, outputs))

    def forward(self, features):
        parts = []
        for i, feature in enumerate(self.features):
            value = features[feature.name]
            # Words are indices in a vocabulary, numbers are z-scores by default.
            value = self.embeddings[str(i)](value) if feature.vocabulary_size else value.float()
            parts.append(value.flatten(1))
        return self.layers(torch.cat(parts, dim=1))


def build_model(spec):
    """Returns the network for the spec."""
    return Network(spec.features, spec.parameters["hidden"], spec.parameters["dropout"], spec.outputs)


def dense(inputs, outputs):
    """Returns a dense layer with the initial weights of Keras."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def embedding_width(vocabulary_size):
    """Returns a width that grows slowly with the vocabulary: 2 to 32."""
    return max(2, min(32, math.ceil(1.6 * vocabulary_size**0.4)))
