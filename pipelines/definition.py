"""Defines all stages in order as a TFX pipeline, independent of the runner."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tfx import types
from tfx.components import ExampleValidator
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base import base_node
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types import channel

from switchyard.components.baseline.component import Baseline
from switchyard.components.data_gate.component import DataGate
from switchyard.components.data_gate.inferred_schema import FineStatistics, InferredSchema
from switchyard.components.ensemble.component import Ensemble
from switchyard.components.errors import UserError
from switchyard.components.evaluation.component import Evaluate
from switchyard.components.infra_validation.component import InfraValidation
from switchyard.components.ingest.component import Ingest
from switchyard.components.registration.component import Register
from switchyard.components.report.component import Report
from switchyard.components.tasks import TASKS
from switchyard.components.training.component import Training
from switchyard.components.training.config import trainer_name
from switchyard.components.training.names import ENSEMBLE
from switchyard.components.transform.component import Transform
from switchyard.components.user_code.loading import snapshot_file
from switchyard.components.warm_start.component import WarmStart
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import (
    VERSION,
    WARM_START,
    data_gate_settings,
    ensemble_settings,
    evaluation_settings,
    infra_validation_settings,
    input_spec,
    preprocessing_code,
    tokenizer_code,
    trainer_settings,
    training_stages,
    tuning_settings,
    tuning_stage,
    warm_start_stage,
)

# Stages that read or write state outside of the workspace (MLflow's registry) run every time. The data gate and evaluation, which
# compare with it, run again because their input is new.
UNCACHED = ("baseline", "registry", "report")


def create_pipeline(
    config: PipelineConfig,
    *,
    pipeline_root: str,
    code_store: Path,
    metadata_path: str | None = None,
    beam_pipeline_args: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> Pipeline:
    """Returns a config's pipeline.

    Args:
        config: the config, with `task` inferred.
        pipeline_root: folder for artifacts.
        code_store: folder for snapshots of the user's code.
        metadata_path: ML Metadata's SQLite file, for runners that use one.
        beam_pipeline_args: Beam arguments of every Beam stage.
        only: the stages to keep; default: all.

    Raises:
        UserError: the user's code does not exist or is no Python.
    """
    if config.task == "auto":
        raise UserError(f"task: cannot be inferred from the data; set it to {', '.join(TASKS)}.")
    ingest = Ingest(input_spec(config), VERSION).with_id("ingest")
    examples = ingest.outputs["examples"]
    statistics_node = FineStatistics(examples).with_id("statistics")
    statistics = statistics_node.outputs["statistics"]
    schema, schema_node = _schema(config, statistics, code_store)
    validation = ExampleValidator(statistics=statistics, schema=schema).with_id("validation")
    baseline_node = Baseline(examples, config.model_name, config.name).with_id("baseline")
    baseline = baseline_node.outputs["baseline"]
    gate = DataGate(examples, statistics, schema, validation.outputs["anomalies"], baseline, data_gate_settings(config)).with_id(
        "data_gate"
    )
    transform = Transform(
        examples,
        schema,
        preprocessing_code(config, code_store),
        VERSION,
        config.validation.environment,
        tokenizer=tokenizer_code(config, code_store),
        texts=config.tokenizer.columns if config.tokenizer else (),
    ).with_id("transform")
    # Orders without a data dependency: the gate's baseline changes in every run, which must not invalidate the transform's cache.
    transform.add_upstream_node(gate)
    trainings, tunings, starts = [], [], []
    for framework, stage in zip(config.trainer.frameworks, training_stages(config), strict=True):
        settings = trainer_settings(config, code_store, framework)
        transformed, graph = transform.outputs["transformed_examples"], transform.outputs["transform_graph"]
        best = start = None
        if reference := config.trainer.start_for(framework):
            starts.append(WarmStart(reference, config.model_name, trainer_name(framework)).with_id(warm_start_stage(stage)))
            start = starts[-1].outputs["starting_point"]
        if tune := tuning_settings(config, framework):
            from switchyard.components.tuning.component import Tuning  # imports Optuna, which other pipelines do not need

            tunings.append(Tuning(examples, transformed, settings, tune, start).with_id(tuning_stage(stage)))
            best = tunings[-1].outputs["best_hyperparameters"]
        trainings.append(Training(examples, statistics, schema, transformed, graph, settings, best, start).with_id(stage))
    for before, after in itertools.pairwise(trainings):
        # Trains sequentially: each trainer uses all cores, and a device belongs to one process.
        after.add_upstream_node(before)
    for before, after in zip(trainings, tunings[1:], strict=False):
        after.add_upstream_node(before)
    members = _union([t.outputs["model"] for t in trainings])
    ensembles = []
    if config.trainer.ensemble:
        ensembles.append(Ensemble(examples, members, ensemble_settings(config, code_store)).with_id(ENSEMBLE))
    model = _union([t.outputs["model"] for t in (*trainings, *ensembles)])
    model_run = _union([t.outputs["model_run"] for t in (*trainings, *ensembles)])
    evaluate = Evaluate(examples, model, baseline, evaluation_settings(config, code_store)).with_id("evaluation")
    evaluation = evaluate.outputs["evaluation"]
    infra_settings = infra_validation_settings(config)
    infra = [InfraValidation(examples, model, infra_settings).with_id("infra_validation")] if infra_settings else []
    infra_blessing = {"infra_blessing": infra[0].outputs["blessing"]} if infra else {}
    candidates = {"examples": examples, "model": model, "evaluation": evaluation, **infra_blessing}
    registry = Register(candidates, config.model_name, config.signing).with_id("registry")
    report = Report(
        {
            "examples": examples,
            "statistics": statistics,
            "schema": schema,
            "verdict": gate.outputs["verdict"],
            "transform_graph": transform.outputs["transform_graph"],
            "model": model,
            "model_run": model_run,
            "evaluation": evaluation,
            "blessing": evaluate.outputs["blessing"],
            "registration": registry.outputs["registration"],
            **infra_blessing,
        },
        config.public_yaml(),
        config.name,
    ).with_id("report")
    nodes: list[base_node.BaseNode] = [
        ingest,
        statistics_node,
        *starts,
        schema_node,
        validation,
        baseline_node,
        gate,
        transform,
        *tunings,
        *trainings,
        *ensembles,
        evaluate,
        *infra,
        registry,
        report,
    ]
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root,
        components=[n for n in nodes if only is None or n.id in only],
        enable_cache=True,
        metadata_connection_config=tfx_metadata.sqlite_metadata_connection_config(metadata_path) if metadata_path else None,
        beam_pipeline_args=list(beam_pipeline_args),
    )


def _schema(config: PipelineConfig, statistics: types.BaseChannel, store: Path) -> tuple[types.BaseChannel, base_node.BaseNode]:
    path = config.validation.schema_path
    if path:
        # A copy named by its content, since the cache key contains only the name.
        node = ImportSchemaGen(schema_file=str(snapshot_file(Path(path), store, key="validation.schema"))).with_id("schema")
    else:
        node = InferredSchema(
            statistics=statistics,
            exclude_splits=[s for s in config.data.splits if s != "train"],
        ).with_id("schema")
    return node.outputs["schema"], node


def uncached(stages: Iterable[str]) -> list[str]:
    """Returns the stages that run every time."""
    return [stage for stage in stages if stage in UNCACHED or stage.startswith(WARM_START)]


def _union(channels: Sequence[types.BaseChannel]) -> types.BaseChannel:
    return channels[0] if len(channels) == 1 else channel.union(channels)
