"""Boosted trees by LightGBM."""
