"""Patches of libraries, one module each: what is wrong or missing there, and from which version on the patch can go."""
