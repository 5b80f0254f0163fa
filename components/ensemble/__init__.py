"""The ensemble stage: the weighted mean of a run's candidates, as a candidate of its own."""
