"""Imposes on KFP's local runner what the real backend does between tasks, and the local one does not.

Metadata goes through ML Metadata (backend/src/v2/metadata/converter.go), artifacts through an object store.
"""

import itertools
import os
from contextlib import contextmanager
from pathlib import Path

from kfp.local import executor_input_utils, executor_output_utils
from kfp.pipeline_spec import pipeline_spec_pb2

_ids = itertools.count(101)


def as_the_backend_returns_it(value):
    if value is None:
        raise ValueError("unknown/unsupported value type *structpb.Value_NullValue")
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, list):
        return {"list": value}
    if isinstance(value, dict):
        return {"struct": value}
    return value


def _artifact_list(artifact):
    artifacts = artifact if isinstance(artifact, list) else [artifact]
    found = []
    for number, a in enumerate(artifacts):
        metadata = {k: as_the_backend_returns_it(v) for k, v in a.metadata.items()}
        added = {"display_name": a.name, "store_session_info": "{}"}
        found.append(
            pipeline_spec_pb2.RuntimeArtifact(
                name=str(next(_ids)),
                # Inputs may arrive without a type.
                type=pipeline_spec_pb2.ArtifactTypeSchema(schema_title=a.schema_title) if number % 2 else None,
                uri=a.uri,
                metadata=executor_input_utils.dict_to_protobuf_struct({**metadata, **added}),
            )
        )
    return pipeline_spec_pb2.ArtifactList(artifacts=found)


@contextmanager
def imposed():
    """Yields the empty folders that the object store lost."""
    lost = []
    before = executor_input_utils.dsl_artifact_to_artifact_list, executor_output_utils.get_outputs_for_task
    outputs_for_task = before[1]

    def through_an_object_store(executor_input, component_spec):
        root = os.path.dirname(executor_input.outputs.output_file)
        for folder, _, _ in sorted(os.walk(root), key=lambda found: -len(found[0])):
            if not os.listdir(folder):
                Path(folder).rmdir()
                lost.append(folder)
        return outputs_for_task(executor_input=executor_input, component_spec=component_spec)

    executor_input_utils.dsl_artifact_to_artifact_list = _artifact_list
    executor_output_utils.get_outputs_for_task = through_an_object_store
    try:
        yield lost
    finally:
        executor_input_utils.dsl_artifact_to_artifact_list, executor_output_utils.get_outputs_for_task = before
