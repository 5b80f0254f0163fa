"""Switchyard's tests: a folder is a suite and its marker; docs/testing.md says what is tested where."""
