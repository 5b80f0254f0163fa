"""The stages of a pipeline and what they share: one folder per stage."""
