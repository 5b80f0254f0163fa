"""Text that leaves: secrets masked, names escaped."""
