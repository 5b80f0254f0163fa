"""Learning rate schedules, with one formula for all frameworks."""

from __future__ import annotations

import math
from typing import Any

# Smith and Topin, 2018 (arXiv 1708.07120), with the defaults of PyTorch's OneCycleLR: the share of steps in which the rate
# rises, and the factors at the start and at the end.
_RISE, _BEGIN, _END = 0.3, 1 / 25, 1e-4 / 25
# `step`: the rate drops to a tenth in the second third, to a hundredth in the last.
_DROP, _PARTS = 0.1, 3


def factor(ops: Any, schedule: str, step: Any, total: int, warmup: int) -> Any:
    """Returns the factor of the learning rate at a step.

    Args:
        ops: NumPy, or a module with the same functions for tensors, such as `keras.ops`.
        schedule: `constant`, `linear` (to 0), `cosine` (half a period, to 0; Loshchilov and Hutter, 2017, arXiv 1608.03983),
            `step` or `one_cycle`.
        step: optimizer steps completed, from 0; a float or a float tensor.
        total: optimizer steps of a training without early stopping.
        warmup: steps in which the rate rises linearly, from 1 / warmup to 1; the schedule covers the remaining steps.
    """
    if schedule == "one_cycle":
        rise = _RISE * total
        up = _between(ops, _BEGIN, 1.0, ops.minimum(step / rise, 1.0))
        down = _between(ops, 1.0, _END, ops.clip((step - rise) / (total - rise), 0.0, 1.0))
        return ops.where(step < rise, up, down)
    progress = ops.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
    after = {
        "constant": lambda: 1.0 + 0.0 * progress,
        "linear": lambda: 1.0 - progress,
        "cosine": lambda: _between(ops, 1.0, 0.0, progress),
        "step": lambda: _DROP ** ops.minimum(ops.floor(_PARTS * progress), _PARTS - 1.0),
    }[schedule]()
    return ops.where(step < warmup, (step + 1.0) / warmup, after) if warmup else after


def _between(ops: Any, start: float, end: float, progress: Any) -> Any:
    """Returns the interpolation between two values along half a period of a cosine."""
    return end + (start - end) * (1.0 + ops.cos(math.pi * progress)) / 2.0
