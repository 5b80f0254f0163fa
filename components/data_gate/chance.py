"""What chance alone explains, at this many rows and in this many columns."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

# Of one false finding in a whole comparison, all of its columns together (Bonferroni's correction).
RISK = 1e-3
# Cochran (1954): the chi-square distribution holds for cells in which at least five rows are expected.
LEAST_EXPECTED = 5


def power_divergence(now: np.ndarray, before: np.ndarray) -> float:
    """Returns how far two samples are from one source.

    The statistic of Cressie and Read (1984) with their lambda of 2/3, which keeps to its chi-square distribution in small cells.

    Args:
        now: rows of each cell, shape (k,).
        before: the same of the other sample.
    """
    observed = np.stack([now, before])[:, now + before > 0]
    expected = observed.sum(axis=1, keepdims=True) * observed.sum(axis=0) / observed.sum()
    return float(1.8 * (observed * ((observed / expected) ** (2 / 3) - 1)).sum())


def critical(cells: int, comparisons: int) -> float:
    """Returns the divergence of `cells` cells that chance exceeds in at most `RISK` of all sets of `comparisons`."""
    return float(special.chdtri(max(1, cells - 1), RISK / max(1, comparisons)))


def largest_by_chance(cells: int, comparisons: int, rows: float, others: float) -> float:
    """Returns the Jensen-Shannon distance (base 2) that goes with `critical`, by its second-order expansion."""
    return math.sqrt(critical(cells, comparisons) * (1 / max(1, rows) + 1 / max(1, others)) / (8 * math.log(2)))


def is_new(found: float, rows: float, others: float, singletons: float, comparisons: int) -> bool:
    """Whether a sample has more rows of a kind that another sample has none of than chance explains.

    By Good (1953) the next row is of an unseen kind with a probability of singletons / rows; one more is added for the kind
    that is looked at itself.

    Args:
        found: rows of such kinds.
        rows: of the sample that they are in.
        others: rows of the sample that they are not in.
        singletons: kinds of which the other sample has one row.
        comparisons: how many columns are looked at.
    """
    if found <= 0:
        return False
    probability = min(1.0, (singletons + 1) / (others + 1))
    return bool(special.bdtrc(math.ceil(found) - 1, max(rows, found), probability) < RISK / max(1, comparisons))


def is_below(found: float, rows: float, share: float, comparisons: int) -> bool:
    """Whether `found` of `rows` rows are fewer than chance gives where `share` of all rows are of the kind; see `is_new`."""
    return (
        bool(special.bdtr(math.floor(found), rows, share) < RISK / max(1, comparisons)) if 0 < share < 1 else found < share * rows
    )
