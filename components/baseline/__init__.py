"""The baseline stage: fetches the registry's champion and the previous run's statistics for comparison."""
