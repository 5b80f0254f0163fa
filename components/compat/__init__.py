"""Patches of libraries, and subclasses of what they do not make public."""
