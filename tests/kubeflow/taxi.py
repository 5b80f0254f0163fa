"""TFX's own taxi-style pipeline, standard components only, as TFX's tutorial writes it."""

import csv
import random
from pathlib import Path

from tensorflow_model_analysis.proto import config_pb2
from tfx import v1 as tfx

MODULE = Path(__file__).parent / "taxi_code" / "taxi_module.py"


def write_data(path: Path, rows: int = 2000) -> None:
    """Writes a CSV of trips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dice = random.Random(7)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["miles", "fare", "payment", "tipped"])
        for _ in range(rows):
            miles = dice.expovariate(0.3)
            payment = dice.choice(["cash", "card", "card", "other"])
            tipped = int(dice.random() < (0.8 if payment == "card" else 0.1))
            writer.writerow([f"{miles:.3f}", f"{3 + 2 * miles + dice.gauss(0, 1):.2f}", payment, tipped])


def taxi(folder: str) -> tfx.dsl.Pipeline:
    """Returns the pipeline; its data is `folder`/data/trips.csv, the model is pushed to `folder`/pushed."""
    example_gen = tfx.components.CsvExampleGen(input_base=f"{folder}/data")
    statistics_gen = tfx.components.StatisticsGen(examples=example_gen.outputs["examples"])
    schema_gen = tfx.components.SchemaGen(statistics=statistics_gen.outputs["statistics"], infer_feature_shape=True)
    validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    transform = tfx.components.Transform(
        examples=example_gen.outputs["examples"], schema=schema_gen.outputs["schema"], module_file=str(MODULE)
    )
    trainer = tfx.components.Trainer(
        module_file=str(MODULE),
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema_gen.outputs["schema"],
        train_args=tfx.proto.TrainArgs(num_steps=600),
        eval_args=tfx.proto.EvalArgs(num_steps=5),
    )
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(signature_name="serving_default", label_key="tipped")],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["payment"])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(
                        class_name="BinaryAccuracy",
                        threshold=config_pb2.MetricThreshold(
                            value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": 0.1})
                        ),
                    ),
                    config_pb2.MetricConfig(class_name="AUC"),
                    config_pb2.MetricConfig(class_name="ExampleCount"),
                    config_pb2.MetricConfig(class_name="ConfusionMatrixPlot"),
                ]
            )
        ],
    )
    evaluator = tfx.components.Evaluator(
        examples=example_gen.outputs["examples"], model=trainer.outputs["model"], eval_config=config
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=f"{folder}/pushed")
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="taxi",
        pipeline_root=f"{folder}/root",
        components=[example_gen, statistics_gen, schema_gen, validator, transform, trainer, evaluator, pusher],
        enable_cache=True,
        beam_pipeline_args=["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"],
    )
