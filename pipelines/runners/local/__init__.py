"""Runs a pipeline on this machine: TFX on Beam's DirectRunner."""
