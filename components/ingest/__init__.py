"""The ingest stage: converts input files to `tf.Example` TFRecords per split and reports the rows it drops."""
