"""create_pipeline: all stages in order, as a TFX pipeline. No runner is known here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfx import types
from tfx.components import ExampleValidator, SchemaGen, StatisticsGen
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base import base_node
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration.pipeline import Pipeline

from components.errors import UserError
from components.evaluation.component import Evaluate
from components.ingest.component import Ingest
from components.registry.component import Register
from components.training.component import Training
from components.transform.component import Transform
from components.user_code import snapshot_file
from pipelines.config import PipelineConfig
from pipelines.settings import VERSION, input_spec, preprocessing_code, trainer_settings

# What lies outside of the workspace (MLflow's registry) is looked at in every run.
UNCACHED = ("registry",)


def create_pipeline(
    config: PipelineConfig,
    *,
    pipeline_root: str,
    code_store: Path,
    metadata_path: str | None = None,
    beam_pipeline_args: Sequence[str] = (),
) -> Pipeline:
    """Returns the pipeline.

    Args:
        config: with `task` decided.
        pipeline_root: where artifacts go.
        code_store: where the user's code is snapshotted.
        metadata_path: SQLite file of ML Metadata, for runners that have one.
        beam_pipeline_args: for every Beam stage.

    Raises:
        UserError: the user's code is not there or is no Python.
    """
    if config.task == "auto":
        raise UserError("task: could not be told from the data here; set it to binary, multiclass or regression.")
    ingest = Ingest(input_spec(config), VERSION).with_id("ingest")
    examples = ingest.outputs["examples"]
    statistics = StatisticsGen(examples=examples).with_id("statistics")
    schema, schema_node = _schema(config, statistics.outputs["statistics"], code_store)
    validation = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema).with_id("validation")
    transform = Transform(examples, schema, preprocessing_code(config, code_store), VERSION).with_id("transform")
    training = Training(
        examples,
        transform.outputs["transformed_examples"],
        transform.outputs["transform_graph"],
        trainer_settings(config, code_store),
    ).with_id("training")
    evaluation = Evaluate(
        examples,
        training.outputs["model"],
        {
            "version": VERSION,
            "slices": [list(s) for s in config.evaluation.slices],
            "thresholds": {k: v.model_dump() for k, v in config.evaluation.thresholds.items()},
        },
    ).with_id("evaluation")
    registry = Register(training.outputs["model"], evaluation.outputs["evaluation"], config.model_name).with_id("registry")
    nodes: list[base_node.BaseNode] = [
        ingest,
        statistics,
        schema_node,
        validation,
        transform,
        training,
        evaluation,
        registry,
    ]
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=tfx_metadata.sqlite_metadata_connection_config(metadata_path) if metadata_path else None,
        beam_pipeline_args=list(beam_pipeline_args),
    )


def _schema(config: PipelineConfig, statistics: types.BaseChannel, store: Path) -> tuple[types.BaseChannel, base_node.BaseNode]:
    path = config.validation.schema_path
    if path:
        # A copy named by its content: the cache key holds the name only.
        node = ImportSchemaGen(schema_file=str(snapshot_file(Path(path), store, key="validation.schema"))).with_id("schema")
    else:
        node = SchemaGen(statistics=statistics, exclude_splits=[s for s in config.data.splits if s != "train"]).with_id("schema")
    return node.outputs["schema"], node
