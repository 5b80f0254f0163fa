"""The pipeline's configuration: reading, validation, types."""
