"""`python run.py FOLDER STEPS EVAL_STEPS [MODULE]`: LocalDagRunner on FOLDER/data; prints seconds, rows and metrics as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

STARTED = time.monotonic()
HERE = Path(__file__).resolve().parent
BEAM = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
SLICE = "payment"


def main(folder: Path, steps: int, eval_steps: int, module: str = "module.py") -> None:
    """Runs the pipeline once, with the user code in `module`, a file beside this one."""
    from tfx import v1 as tfx

    imported = time.monotonic() - STARTED
    tfx.orchestration.LocalDagRunner().run(pipeline(folder, steps, eval_steps, str(HERE / module)))
    print(json.dumps({"seconds": time.monotonic() - STARTED, "imports": imported, **_found(folder)}))


def pipeline(folder: Path, steps: int, eval_steps: int, module: str) -> Any:
    """Returns TFX's standard components, as its tutorials connect them."""
    from tfx import v1 as tfx

    examples = tfx.components.CsvExampleGen(input_base=str(folder / "data"))
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    validator = tfx.components.ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"], schema=schema.outputs["schema"], module_file=module
    )
    trainer = tfx.components.Trainer(
        module_file=module,
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        train_args=tfx.proto.TrainArgs(num_steps=steps),
        eval_args=tfx.proto.EvalArgs(num_steps=eval_steps),
    )
    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"], model=trainer.outputs["model"], eval_config=_eval_config()
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(folder / "pushed"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="stock",
        pipeline_root=str(folder / "root"),
        components=[examples, statistics, schema, validator, transform, trainer, evaluator, pusher],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(str(folder / "metadata.db")),
        beam_pipeline_args=BEAM,
    )


def _eval_config() -> Any:
    """The metrics, plots and slices that Switchyard computes."""
    from tensorflow_model_analysis.proto import config_pb2

    from switchyard.components.evaluation.tfma_config import eval_config

    config = eval_config("binary", [[SLICE]], [""])
    del config.model_specs[:]
    config.model_specs.add(signature_name="serving_default", label_key="tipped")
    metric = next(m for m in config.metrics_specs[0].metrics if m.class_name == "AUC")
    metric.threshold.CopyFrom(
        config_pb2.MetricThreshold(value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": 0.5}))
    )
    return config


def _found(folder: Path) -> dict[str, Any]:
    """Returns each component's seconds (of its latest execution), rows by split, and the metrics."""
    import tensorflow_model_analysis as tfma
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(folder / "metadata.db")
    store = metadata_store.MetadataStore(connection)
    stages = {}
    for kind in store.get_execution_types():
        latest = max(store.get_executions_by_type(kind.name), key=lambda e: e.id, default=None)
        if latest is not None:
            took = (latest.last_update_time_since_epoch - latest.create_time_since_epoch) / 1000
            stages[kind.name.rpartition(".")[2]] = took
    [evaluation] = (folder / "root" / "Evaluator" / "evaluation").iterdir()
    metrics = {}
    for record in tfma.load_metrics(str(evaluation)):
        if not record.slice_key.single_slice_keys:
            for item in record.metric_keys_and_values:
                metrics[item.key.name] = item.value.double_value.value
    return {"stages": stages, "rows": _rows(folder), "metrics": metrics}


def _rows(folder: Path) -> dict[str, int]:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    found = {}
    for file in (folder / "root" / "StatisticsGen" / "statistics").glob("*/Split-*/FeatureStats.pb"):
        read = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
        found[file.parent.name.removeprefix("Split-")] = read.datasets[0].num_examples
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
