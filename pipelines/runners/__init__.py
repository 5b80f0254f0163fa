"""Runners: the same pipeline, in different places. `contract` says what one is, `registry` which there are."""
