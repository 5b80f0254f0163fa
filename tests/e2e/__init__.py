"""Whole pipelines through the command line, with their gates, registry, reports and failures."""
