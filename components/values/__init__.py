"""Converts raw values to the types of trained columns; training and serving share the code."""
