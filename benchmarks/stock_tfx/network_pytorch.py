"""The model of `network.py` in PyTorch."""

import torch
from torch import nn


class Network(nn.Module):
    """Features, each (B, 1), -> logits (B, 1)."""

    def __init__(self, features):
        super().__init__()
        words = {f.name: f.vocabulary_size for f in features if f.vocabulary_size}
        self.numbers = [f.name for f in features if f.name not in words]
        self.words = list(words)
        self.embeddings = nn.ModuleList(nn.Embedding(size, 8) for size in words.values())
        widths = len(self.numbers) + 8 * len(words)
        self.layers = nn.Sequential(nn.Linear(widths, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, inputs):
        """Returns the logits of a batch."""
        embedded = [e(inputs[n][:, 0]) for e, n in zip(self.embeddings, self.words, strict=True)]
        return self.layers(torch.cat([*(inputs[n] for n in self.numbers), *embedded], dim=1))


def build_model(spec):
    """Returns the network for Switchyard."""
    return Network(spec.features)
