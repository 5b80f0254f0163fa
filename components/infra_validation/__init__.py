"""The infra-validation stage: a model that cannot be served is not promoted."""
