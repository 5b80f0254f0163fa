"""Renders the report of a run."""
