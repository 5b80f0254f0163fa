"""Stops a run on data that training must not see."""
