"""Models behind HTTP, over files, and on a cluster: all of them take a model bundle and raw features."""
