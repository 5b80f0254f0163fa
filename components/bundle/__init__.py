"""A model as it is kept: written, verified, opened."""
