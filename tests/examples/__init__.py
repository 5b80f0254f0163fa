"""The example pipelines and the tasks of the documentation, run whole through the command line."""
