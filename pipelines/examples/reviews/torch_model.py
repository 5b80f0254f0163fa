"""A small convolution over words in PyTorch; `keras_model.py` is the same network in Keras."""

from torch import nn


class Reviews(nn.Module):
    """Words -> logits, (B, length) -> (B, outputs); the index 0 is no word."""

    def __init__(self, feature, width, filters, outputs):
        super().__init__()
        self.name = feature.name
        self.embedding = nn.Embedding(feature.vocabulary_size, width)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)  # as in Keras
        self.convolution = nn.Conv1d(width, filters, 3, padding="same")
        self.layers = nn.Sequential(nn.Dropout(0.25), nn.Linear(filters, outputs))

    def forward(self, features):
        words = features[self.name]
        x = self.embedding(words) * (words > 0).unsqueeze(2)
        # Conv1d reads (B, channels, length).
        x = self.convolution(x.transpose(1, 2)).relu()
        return self.layers(x.mean(dim=2))


def build_model(spec):
    """Returns the network for the spec."""
    [feature] = spec.features
    return Reviews(feature, spec.parameters["width"], spec.parameters["filters"], spec.outputs)
