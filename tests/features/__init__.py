"""Whole runs of each kind of task, data and model, through the command line."""
