"""Runs that are killed in every stage in turn."""
