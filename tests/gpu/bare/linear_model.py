"""A linear model without dropout, whose training does not depend on random numbers of its process."""

import torch


def build_model(spec):
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, spec.outputs)
            torch.nn.init.zeros_(self.layer.weight)
            torch.nn.init.zeros_(self.layer.bias)

        def forward(self, features):
            return self.layer(features["x"])

    return Linear()
