"""Writes, verifies and loads model bundles."""
