"""Trainers of libraries that are not built in, as examples."""
