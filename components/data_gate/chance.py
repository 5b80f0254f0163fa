"""Tests of whether chance alone explains a difference, given the numbers of rows and columns."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

# Probability of one false finding in a whole comparison, over all of its columns (Bonferroni's correction).
RISK = 1e-3
# Cochran (1954): the chi-square distribution holds for cells in which at least five rows are expected.
LEAST_EXPECTED = 5


def power_divergence(now: np.ndarray, before: np.ndarray) -> float:
    """Returns the divergence of two samples.

    The statistic of Cressie and Read (1984) with their lambda of 2/3, which follows its chi-square distribution in small cells.

    Args:
        now: rows in each cell, shape (k,).
        before: rows of the other sample in each cell, shape (k,).
    """
    observed = np.stack([now, before])[:, now + before > 0]
    expected = observed.sum(axis=1, keepdims=True) * observed.sum(axis=0) / observed.sum()
    return float(1.8 * (observed * ((observed / expected) ** (2 / 3) - 1)).sum())


def critical(cells: int, comparisons: int) -> float:
    """Returns the divergence over `cells` cells that chance exceeds with probability `RISK` at most, over all `comparisons`."""
    return float(special.chdtri(max(1, cells - 1), RISK / max(1, comparisons)))


def largest_by_chance(cells: int, comparisons: int, rows: float, others: float) -> float:
    """Returns the Jensen-Shannon distance (base 2) that corresponds to `critical`, by its second-order expansion."""
    return math.sqrt(critical(cells, comparisons) * (1 / max(1, rows) + 1 / max(1, others)) / (8 * math.log(2)))


def is_new(found: float, rows: float, others: float, singletons: float, comparisons: int) -> bool:
    """Whether a sample has more rows of kinds absent from another sample than chance explains.

    By Good (1953) the next row is of an unseen kind with probability singletons / rows; one more singleton is added for the kind
    under test.

    Args:
        found: rows of kinds absent from the other sample.
        rows: rows of the sample.
        others: rows of the other sample.
        singletons: kinds with exactly one row in the other sample.
        comparisons: number of columns tested.
    """
    if found <= 0:
        return False
    probability = min(1.0, (singletons + 1) / (others + 1))
    return bool(special.bdtrc(math.ceil(found) - 1, max(rows, found), probability) < RISK / max(1, comparisons))


def is_below(found: float, rows: float, share: float, comparisons: int) -> bool:
    """Whether `found` of `rows` rows are fewer than chance explains when `share` of all rows are of the kind; see `is_new`."""
    return (
        bool(special.bdtr(math.floor(found), rows, share) < RISK / max(1, comparisons)) if 0 < share < 1 else found < share * rows
    )
