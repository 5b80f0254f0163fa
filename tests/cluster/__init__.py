"""Submitted pipelines and TrainJobs, against servers that execute what they receive."""
