"""TFX's Transform executor, extended with the label's facts from ingest at run time."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow_data_validation as tfdv
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.transform import executor as tfx_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, json_utils

from switchyard.components.compat.tfx_transform import written_by
from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.data.schema import NO_VALUE, belongs, environment_of
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.progress import warn
from switchyard.components.tracking import run as tracking
from switchyard.components.training.columns import FILE, features_json
from switchyard.components.training.vocabularies import FILE as VOCABULARIES
from switchyard.components.training.vocabularies import vocabularies_json
from switchyard.components.transform.columns import WriteColumns, feature_specs, trained_features
from switchyard.components.transform.line_breaks import line_break_notes
from switchyard.components.transform.preprocessing import mask_names
from switchyard.components.transform.vocabularies import tokenizer_digest, vocabularies
from switchyard.components.user_code.loading import UserCode
from switchyard.components.user_code.tokenizer import FOLDER as TOKENIZER
from switchyard.components.user_code.tokenizer import tokenizer_outputs


class Executor(tfx_executor.Executor):
    """Transform executor that adds `label`, `classes` and `unusable` to the `custom_config` of `preprocessing_fn`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class."""
        summary = DatasetSummary.load(artifact_utils.get_single_uri(input_dict["examples"]))
        schema_folder = artifact_utils.get_single_uri(input_dict["schema"])
        schema = tfdv.load_schema_text(io_utils.get_only_uri_in_dir(schema_folder))
        config = json_utils.loads(exec_properties["custom_config"])
        names = {"label": summary.label, "labels": summary.labels, "group": summary.group, "weight": summary.sample_weight}
        masks = mask_names(summary.sequences, {*(f.name for f in schema.feature), summary.label, summary.sample_weight})
        sequences = {name: {**how, "mask": masks[name]} for name, how in summary.sequences.items()}
        config.update(**names, classes=summary.classes, images=summary.images, sequences=sequences, unusable=[])
        if config["code"] is None:
            config["unusable"] = unusable_features(schema, summary.no_features, sequences)
            for name, reason in config["unusable"].items():
                warn(f"feature {name!r} is not used: {reason}")
            tracking.current_run().tags({"unusable_features": ", ".join(config["unusable"]) or "none"})
        for note in line_break_notes(summary, config):
            warn(note)
        properties = {**exec_properties, "custom_config": json_utils.dumps(config)}
        tokenizer = UserCode(**config["tokenizer"]) if "tokenizer" in config else None
        columns = written_by(
            lambda schema, place: WriteColumns(
                schema, summary.label, place, tokenizer, summary.bytes_columns, weight=summary.sample_weight
            )
        )
        with tempfile.TemporaryDirectory() as folder, columns:
            super().Do(
                {**input_dict, "schema": [_in_environment(schema, config.get("environment"), summary.sequences, folder)]},
                output_dict,
                properties,
            )
        graph = tft.TFTransformOutput(artifact_utils.get_single_uri(output_dict["transform_graph"]))
        # Vocabulary sizes are known only after the analysis.
        others = (summary.label, summary.sample_weight)
        features = feature_specs(graph.transformed_metadata.schema, others, tokenized=tokenizer is not None)
        if config["code"] is None:
            features = tuple(_pooled(feature, sequences) for feature in features)
        trained, weighted = features, bool(summary.sample_weight)
        for artifact in output_dict.get("transformed_examples", ()):
            tokens: dict[str, str] = {}
            if tokenizer:
                outputs = tokenizer_outputs(os.path.join(artifact.uri, TOKENIZER))
                trained = trained_features(features, outputs, summary.label)
                tokens = dict.fromkeys((f.name for f in outputs), tokenizer_digest(os.path.dirname(tokenizer.path)))
            io_utils.write_string_file(os.path.join(artifact.uri, FILE), features_json(trained, weighted=weighted))
            found = vocabularies_json(vocabularies(graph, trained, tokens))
            io_utils.write_string_file(os.path.join(artifact.uri, VOCABULARIES), found)


def _in_environment(schema: schema_pb2.Schema, wanted: str | None, sequences: Collection[str], folder: str) -> Any:
    """Returns the schema as an artifact in `folder`: without features of other environments, and sequences of any length."""
    environment = environment_of(schema, wanted)
    for feature in list(schema.feature):
        if not belongs(feature, environment, schema.default_environment):
            schema.feature.remove(feature)
        elif feature.name in sequences:
            # All may have one length in this data.
            feature.ClearField("shape")
            feature.presence.Clear()
            feature.value_count.min = 0
    artifact = standard_artifacts.Schema()
    artifact.uri = folder
    tfdv.write_schema_text(schema, os.path.join(folder, "schema.pbtxt"))
    return artifact


def _pooled(feature: FeatureSpec, sequences: Mapping[str, Mapping[str, Any]]) -> FeatureSpec:
    """Returns the feature, that of a sequence with `pool` with how it is pooled."""
    how = sequences.get(feature.name, {})
    return dataclasses.replace(feature, pool=how["pool"], mask=how["mask"]) if "pool" in how else feature


def unusable_features(schema: schema_pb2.Schema, no_features: Collection[str], sequences: Collection[str] = ()) -> dict[str, str]:
    """Returns the features that the default preprocessing cannot use -> reason."""
    found = {}
    for feature in schema.feature:
        if feature.name in no_features:
            continue
        if feature.name in sequences:
            if NO_VALUE in feature.annotation.tag:
                found[feature.name] = "it has no value in the training split"
        elif not feature.HasField("shape") and feature.value_count.max > 1:
            numbers = f"declare data.columns: {{{feature.name}: {{type: sequence, length: 32}}}}, or "
            fix = f"{'' if feature.type == schema_pb2.BYTES else numbers}write a preprocessing_fn for it"
            found[feature.name] = f"it holds a varying number of values per row; {fix}"
        elif feature.type == schema_pb2.BYTES and feature.HasField("shape") and _width(feature) > 1:
            found[feature.name] = "it holds several texts per row; write a preprocessing_fn for it"
        elif feature.type not in (schema_pb2.BYTES, schema_pb2.INT, schema_pb2.FLOAT) or NO_VALUE in feature.annotation.tag:
            found[feature.name] = "it has no value in the training split"
    return found


def _width(feature: schema_pb2.Feature) -> int:
    width = 1
    for dim in feature.shape.dim:
        width *= dim.size
    return width
