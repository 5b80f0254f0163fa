"""The schema that a pipeline without one gets."""

import json

import pytest

from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.definition import create_pipeline
from tests.command import BREAST_CANCER

pytestmark = pytest.mark.core


def test_a_schema_is_inferred_from_the_training_rows_alone(tmp_path):
    config = load_config(BREAST_CANCER, overrides=["task=binary", "validation.schema=null"])
    pipeline = create_pipeline(config, pipeline_root=str(tmp_path), code_store=tmp_path / "code")
    [schema] = [node for node in pipeline.components if node.id == "schema"]
    assert len(config.data.splits) > 1
    assert {*json.loads(schema.exec_properties["exclude_splits"]), "train"} == set(config.data.splits)
