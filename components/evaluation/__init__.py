"""Evaluation: the bundle's predictions on raw rows, TFMA's metrics and slices, thresholds, a blessing."""
