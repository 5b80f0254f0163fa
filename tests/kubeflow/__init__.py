"""Compiled pipelines: golden files, manifests, KFP's local runner, TFX pipelines that are not ours."""
