"""Complete pipelines on data that scikit-learn carries."""
