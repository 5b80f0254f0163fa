"""Apache Beam worker."""
