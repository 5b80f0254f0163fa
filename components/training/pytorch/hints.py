"""Leaves out Lightning's hints that nothing in a config can follow: devices that are not used, products, its own deprecations."""

from __future__ import annotations

import logging
import warnings

_HINTS = (
    " available: ",
    "LOCAL_RANK: ",
    "`Trainer.fit` stopped: ",
    "`weights_only` was not set",
    "litlogger",
    # The precision of matrix products is `trainer.accelerator.precision`.
    "that has Tensor Cores",
)
_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector")


def without_hints() -> None:
    """Filters the hints for the rest of the process; whatever else Lightning or the user's callbacks log stays."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_no_hint)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\.")


def _is_no_hint(record: logging.LogRecord) -> bool:
    return not any(hint in record.getMessage() for hint in _HINTS)
