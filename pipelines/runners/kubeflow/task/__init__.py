"""Code that runs inside a task."""
