"""The evaluation stage: predictions on raw rows, TFMA's metrics and slices, thresholds and the blessing."""
