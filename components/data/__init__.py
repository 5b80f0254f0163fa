"""Data set summary, shards, schema and TFRecords."""
