"""Apache Beam's start and its workers."""
