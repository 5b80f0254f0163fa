"""Predictions over files."""
