"""Patches of libraries, and what is used of one that is not public: one module each, with its `PRIVATE` (see `patch`)."""
