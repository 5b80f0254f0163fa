"""How well rows are reconstructed. Each function receives all rows: labels, None here, and scores (n, 1)."""

import numpy as np


def median_error(labels, scores):
    """Returns the median error, which a few anomalies among the rows do not move."""
    return np.median(scores)


def tail(labels, scores):
    """Returns how far the largest hundredth of the errors lies above the median, as a ratio."""
    return np.quantile(scores, 0.99) / np.median(scores)
