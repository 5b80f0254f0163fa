"""The data set: its summary, shards and records."""
