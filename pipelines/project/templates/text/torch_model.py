"""The network in PyTorch; `keras_model.py` is the same one in Keras. Its sizes: `model_parameters` in pipeline.yaml."""

import math

import torch
from torch import nn


class Network(nn.Module):
    """Features -> logits, (B, outputs): a convolution over the words of each text, beside the other columns."""

    def __init__(self, features, width, filters, dropout, outputs):
        super().__init__()
        self.features = features
        # By position, since PyTorch refuses some characters that columns may have.
        self.embeddings, self.convolutions = nn.ModuleDict(), nn.ModuleDict()
        wide = 0
        for i, feature in enumerate(features):
            if not feature.vocabulary_size:
                wide += math.prod(feature.shape)
                continue
            self.embeddings[str(i)] = nn.Embedding(feature.vocabulary_size, width)
            nn.init.uniform_(self.embeddings[str(i)].weight, -0.05, 0.05)  # as in Keras
            if feature.shape == (1,):  # a column whose text is one word to the default features
                wide += width
                continue
            self.convolutions[str(i)] = initial(nn.Conv1d(width, filters, 3, padding="same"))
            wide += filters
        self.layers = nn.Sequential(nn.Dropout(dropout), initial(nn.Linear(wide, outputs)))

    def forward(self, features):
        parts = []
        for i, feature in enumerate(self.features):
            value = features[feature.name]
            if not feature.vocabulary_size:
                parts.append(value.float().flatten(1))
                continue
            x = self.embeddings[str(i)](value)
            if str(i) in self.convolutions:
                x = x * (value > 0).unsqueeze(2)  # 0 is no word
                # What three words in a row say at most; Conv1d reads (B, channels, length).
                x = self.convolutions[str(i)](x.transpose(1, 2)).relu().amax(dim=2)
            parts.append(x.flatten(1))
        return self.layers(torch.cat(parts, dim=1))


def build_model(spec):
    """Returns the network for the spec."""
    sizes = (spec.parameters[name] for name in ("width", "filters", "dropout"))
    return Network(spec.features, *sizes, spec.outputs)


def initial(layer):
    """Returns a layer with the initial weights of Keras."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
