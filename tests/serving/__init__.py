"""Models behind HTTP and over files."""
