"""Beam's stages on Apache Flink."""
