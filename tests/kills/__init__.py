"""Runs that are killed in each stage in turn."""
