"""Switchyard's tests. Each folder is a suite, whose name is the marker of its tests; docs/testing.md describes them."""
