"""Whole runs about where a version comes from and what becomes of it: start, dependencies, signature, upgrade, environment."""
