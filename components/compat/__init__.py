"""Holds patches of libraries and uses of their private names: one module each, declared in its `PRIVATE` (see `patch`)."""
