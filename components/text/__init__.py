"""Text for output: secrets masked, names escaped, control characters visible."""
