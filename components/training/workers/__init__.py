"""One training on several processes or nodes."""
