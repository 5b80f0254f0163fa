"""Baseline: finds what a run is compared with, the registry's champion and the previous run's statistics."""
