"""The pipeline's configuration: read, checked, typed."""
