"""The default model in PyTorch. Mirrors `tensorflow/default_model.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from switchyard.components.training.default_model import DROPOUT, HIDDEN, embedding_width, image_filters, is_image
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.start import Start


def default_model(spec: ModelSpec, start: Start | None = None) -> nn.Module:
    """Returns a model with embeddings for vocabularies, convolutions for images, pooled bags, and two dense layers.

    Args:
        spec: the model's spec.
        start: the version that the training starts from, whose embeddings are as wide for any vocabulary.
    """
    return _DefaultModel(spec, start)


class _DefaultModel(nn.Module):
    def __init__(self, spec: ModelSpec, start: Start | None) -> None:
        super().__init__()
        self._features, self._output_shape = spec.features, spec.output_shape
        self.embeddings, self.convolutions = nn.ModuleDict(), nn.ModuleDict()
        width = 0
        for i, feature in enumerate(spec.features):
            size = int(np.prod(feature.shape))
            if feature.vocabulary_size:
                columns = (start and start.columns(f"embeddings.{i}.weight")) or embedding_width(feature.vocabulary_size)
                embedding = self.embeddings[str(i)] = nn.Embedding(feature.vocabulary_size, columns)
                nn.init.uniform_(embedding.weight, -0.05, 0.05)
                size *= columns
            elif is_image(feature.shape):
                self.convolutions[str(i)], size = _convolutions(feature.shape)
            width += size // feature.shape[0] if feature.pool else size
        layers: list[nn.Module] = []
        for hidden in HIDDEN:
            layers += [_linear(width, hidden), nn.ReLU(), nn.Dropout(DROPOUT)]
            width = hidden
        self.layers = nn.Sequential(*layers, _linear(width, spec.outputs))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        parts = []
        for i, feature in enumerate(self._features):
            value = features[feature.name]
            value = self.embeddings[str(i)](value) if feature.vocabulary_size else value.float()
            if str(i) in self.convolutions:
                value = self.convolutions[str(i)](value.permute(0, 3, 1, 2))  # PyTorch has the channels first
            if feature.mask:
                value = _pooled(value, features[feature.mask], feature.pool)
            parts.append(value.flatten(1))
        logits: torch.Tensor = self.layers(torch.cat(parts, dim=1))
        return logits.unflatten(1, self._output_shape) if len(self._output_shape) > 1 else logits


def _pooled(values: torch.Tensor, mask: torch.Tensor, pool: str | None) -> torch.Tensor:
    """Returns the mean or sum of (B, L, ...) over the positions of a mask (B, L); 0 of none."""
    total = (values.flatten(2) if values.dim() > 2 else values.unsqueeze(2)).mul(mask.unsqueeze(2)).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1) if pool == "mean" else total


def _convolutions(shape: Sequence[int]) -> tuple[nn.Module, int]:
    """Returns the layers of an image and the number of their outputs."""
    height, width, channels = shape
    layers: list[nn.Module] = []
    for filters in image_filters(shape):
        convolution = nn.Conv2d(channels, filters, 3, padding="same")
        nn.init.xavier_uniform_(convolution.weight)
        nn.init.zeros_(cast(torch.Tensor, convolution.bias))
        layers += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
        height, width, channels = height // 2, width // 2, filters
    return nn.Sequential(*layers), height * width * channels


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)  # Keras' initialization, so that both frameworks start alike
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
