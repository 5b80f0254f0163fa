"""Patches of libraries, and what is used of one that it does not make public: one module each, with its `PRIVATE` (see `patch`)."""
