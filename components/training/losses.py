"""The losses by name, with one meaning in all frameworks; each framework implements them in its `losses.py`.

Below, y is the label, z the model's output (a logit in a classification) and p the probability of the row's class. Of each row:

- `cross_entropy`: -log p.
- `focal`: (1 - p) ** gamma times the cross-entropy (Lin et al., 2017, arXiv 1708.02002; its alpha is `class_weights`).
- `hinge`: max(0, 1 + z' - z), with z of the row's class and z' the largest of the others (Crammer and Singer, 2001); binary:
  max(0, 1 - z), with -z for the first class. Sigmoid or softmax of z is what is served, which hinge does not calibrate.
- `mse`: (y - z) ** 2. `mae`: abs(y - z).
- `huber`: (y - z) ** 2 / 2 up to `delta`, then delta * (abs(y - z) - delta / 2) (Huber, 1964).
- `poisson`: exp(z) - y * z, the negative log-likelihood of a count without its constant; exp(z) is what is served.
- `quantile`: max(q * (y - z), (q - 1) * (y - z)), whose minimum is the quantile q (Koenker and Bassett, 1978).
- `pinball`: the mean of `quantile` over `trainer.quantiles`, each with an output of its own.

Of several labels, each loss is the mean of the labels'.

Of a ranking, the loss of each row is its query's times the row's weight, with which the mean over rows is the mean over queries
with a relevant row (see `queries.QueryExamples`). Of a query, with y the relevance of its rows:

- `listwise`: -sum of y / sum(y) * log softmax(z) (Cao et al., Learning to rank: from pairwise to listwise approach, 2007).
- `pairwise`: the mean of log(1 + exp(z_j - z_i)) over the pairs of rows with y_i > y_j (Burges et al., Learning to rank using
  gradient descent, 2005); 0 without a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.training.names import LOSSES

# Loss -> its parameters with their defaults; both frameworks' implementations take them as keywords.
PARAMETERS: dict[str, dict[str, float]] = {"focal": {"gamma": 2.0}, "huber": {"delta": 1.0}, "quantile": {"quantile": 0.5}}
# Parameter -> its bounds, and whether the bounds are allowed.
_BOUNDS = {"gamma": (0.0, float("inf"), True), "delta": (0.0, float("inf"), False), "quantile": (0.0, 1.0, False)}
SMOOTHED = ("cross_entropy", "focal")
# The loss of a custom task whose model has a training of its own.
OF_MODEL = "the model's"


@dataclass(frozen=True)
class Loss:
    """A loss as trainers receive it.

    Attributes:
        name: a name of `LOSSES`, or `file.py:function` as shown to the user.
        parameters: parameters of the loss, all defaults resolved; or what the user's function receives as keywords.
        function: the user's `function(labels, outputs, **parameters)`, which maps labels (B,), int64 class indices or float32,
            (B, labels) of several columns, (B, 3) of a ranking, and outputs (B, outputs) to the loss of each row, shape (B,), in
            the framework's tensors; None for a named loss. In a `custom` task labels are (B, *label_shape), or None without a
            label, and outputs (B, *output_shape).
        label_shape: the shape of a row's label in which the function receives it; None: as it is stored.
        labelled: whether the rows have labels; otherwise the function receives None.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    function: Callable[..., Any] | None = None
    label_shape: tuple[int, ...] | None = None
    labelled: bool = True

    @property
    def of_log(self) -> bool:
        """Whether the model's output is the logarithm of the predicted value."""
        return self.function is None and self.name == "poisson"


def named_loss(
    task: str, name: str | None = None, parameters: Mapping[str, Any] | None = None, targets: Sequence[str] = ()
) -> Loss:
    """Returns a loss with its parameters' defaults resolved; without a name the task's own.

    Args:
        task: name of the task.
        name: a name of `LOSSES`.
        parameters: the config's `trainer.loss_parameters`.
        targets: see `ModelSpec.targets`.

    Raises:
        UserError: the task has no such loss.
    """
    if name is None and not LOSSES[task]:
        raise UserError(
            f"trainer.loss: a {task} task has no loss of its own; give yours, 'losses.py:my_loss', or define build_loss(spec) in "
            "the file of trainer.model"
        )
    name = name or LOSSES[task][0]
    if name not in LOSSES[task]:
        raise UserError(unknown_loss(name, task))
    of_targets = {"quantiles": [float(t) for t in targets]} if name == "pinball" and targets else {}
    return Loss(name, {**PARAMETERS.get(name, {}), **(parameters or {}), **of_targets})


def unknown_loss(name: str, task: str) -> str:
    """Returns the message about a name that is no loss of the task, or, for `auto`, of any task."""
    allowed = LOSSES.get(task, tuple(dict.fromkeys(n for names in LOSSES.values() for n in names)))
    of_task = f" of a {task} task" if task in LOSSES else ""
    named = f"{', '.join(allowed)}, or " if allowed else ""
    return f"trainer.loss: {name!r} is not a loss{of_task}; allowed: {named}'losses.py:my_loss'.{did_you_mean(name, allowed)}"


def check_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Raises ValueError for parameters that a named loss does not have, or out of their bounds."""
    allowed = PARAMETERS.get(name, {})
    for key, value in parameters.items():
        if key not in allowed:
            fix = f"allowed: {', '.join(allowed)}" if allowed else "remove it"
            raise ValueError(f"loss_parameters: {name} has no parameter {key!r}; {fix}")
        low, high, inclusive = _BOUNDS[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (low <= value < high if inclusive else low < value < high):
            least = "at least" if inclusive else "above"
            most = "" if high == float("inf") else f" and below {high:g}"
            raise ValueError(f"loss_parameters.{key}: must be a number {least} {low:g}{most}, received {value!r}")


def check_smoothing(name: str, smoothing: float) -> None:
    """Raises UserError for label smoothing of a loss that has no distribution to smooth."""
    if smoothing and name not in SMOOTHED:
        raise UserError(
            f"trainer.hyperparameters.label_smoothing: the loss {name} has none; leave it out, or use the loss "
            f"{' or '.join(SMOOTHED)}"
        )


def check_rows(loss: Loss, shape: tuple[int | None, ...], rows: int) -> None:
    """Raises UserError unless the user's function returned the loss of each of `rows` rows."""
    if tuple(shape) != (rows,):
        raise UserError(
            f"trainer.loss: {loss.name} returned shape {tuple(shape)} for {rows} rows; return one loss per row, shape ({rows},), "
            "so that weights and the mean over workers apply"
        )
