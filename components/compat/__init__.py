"""Patches of libraries and subclasses of what they do not make public, one module each: why, and until which version."""
