"""Predicts whole files."""
