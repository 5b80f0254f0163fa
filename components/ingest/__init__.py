"""Ingest: files in, `tf.Example` TFRecords split by name out, with a report of what was left out."""
