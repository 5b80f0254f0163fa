"""The user's Python files: loaded, and found with what they open."""
