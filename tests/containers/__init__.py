"""The project's image, built and run."""
