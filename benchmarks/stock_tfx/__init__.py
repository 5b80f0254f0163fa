"""The pipeline of `benchmarks/pipeline.py` as TFX's own documentation would have it."""
