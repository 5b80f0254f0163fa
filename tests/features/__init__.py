"""Whole runs of each kind of task, through the command line."""
