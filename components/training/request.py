"""From the stage's settings and inputs to the request that a trainer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_transform as tft

from switchyard.components.data.summary import DatasetSummary, split_files
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.class_weights import class_weights
from switchyard.components.training.contract import EARLY_STOPPING_EPOCHS, WHOLE, Hyperparameters, ModelSpec, Shard, TrainRequest
from switchyard.components.training.examples import TransformedExamples, feature_specs
from switchyard.components.user_code.loading import UserCode

DEFAULT_EPOCHS = 20
# In the training's state folder.
CHECKPOINTS, EXPORT = "checkpoints", "export"


def train_request(
    settings: dict[str, Any],
    summary: DatasetSummary,
    graph_uri: str,
    transformed_uri: str,
    state: Path,
    shard: Shard = WHOLE,
) -> TrainRequest:
    """Returns the request for the stage's settings (the config's `trainer`, as plain data) and inputs."""
    graph = tft.TFTransformOutput(graph_uri)
    spec = ModelSpec(
        features=feature_specs(graph, summary.label),
        task=summary.task,
        outputs=len(summary.classes) if summary.task == "multiclass" else 1,
        parameters=settings["model_parameters"],
    )
    feature_spec = graph.transformed_feature_spec()

    def source(split: str) -> TransformedExamples:
        return TransformedExamples(split_files(transformed_uri, split), feature_spec, summary.label)

    code = settings["code"]
    return TrainRequest(
        spec=spec,
        train=source("train"),
        eval=source("eval"),
        hyperparameters=hyperparameters(settings["hyperparameters"], summary),
        accelerator=AcceleratorProfile(**settings["accelerator"]),
        build_model=UserCode(**code).load() if code else None,
        checkpoint_dir=state / CHECKPOINTS,
        export_dir=state / EXPORT,
        shard=shard,
    )


def hyperparameters(given: dict[str, Any], summary: DatasetSummary) -> Hyperparameters:
    """Returns the config's hyperparameters with everything decided."""
    stopping = given["early_stopping"]
    steps = given["steps"]
    rows = summary.rows["train"]
    epochs = given["epochs"] or (-(-steps // -(-rows // given["batch_size"])) if steps else None)
    return Hyperparameters(
        epochs=epochs or (EARLY_STOPPING_EPOCHS if stopping else DEFAULT_EPOCHS),
        steps=steps,
        batch_size=given["batch_size"],
        learning_rate=given["learning_rate"],
        optimizer=given["optimizer"],
        seed=given["seed"],
        patience=stopping["patience"] if stopping else None,
        min_delta=stopping["min_delta"] if stopping else 0.0,
        class_weights=class_weights(given["class_weights"], summary.classes, summary.class_counts, summary.label),
    )
