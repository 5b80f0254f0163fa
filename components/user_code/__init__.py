"""The user's Python files: snapshots, loading, and the data files that they open."""
