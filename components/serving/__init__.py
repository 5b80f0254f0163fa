"""Serves model bundles over HTTP: a bundle takes raw features and returns predictions."""
