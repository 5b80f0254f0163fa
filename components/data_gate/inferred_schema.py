"""TFX's statistics and schema stages with finer quantiles, and a schema that fits the rows of every split.

A schema inferred from the training split alone describes only those rows: a single missing value in another split contradicts
it and cannot be parsed. So presence and shape come from all splits, as does the type of a column without values in `train`;
domains come from the training split.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components import SchemaGen, StatisticsGen
from tfx.components.schema_gen import executor as schema_executor
from tfx.components.statistics_gen import executor as statistics_executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils
from tfx.types.standard_component_specs import STATS_OPTIONS_JSON_KEY
from tfx.utils import io_utils, json_utils, stats_utils

from switchyard.components.beam.in_memory import fit_in_memory
from switchyard.components.compat import tfdv_in_memory
from switchyard.components.compat.tfdv_quantiles import BUCKETS, stats_options
from switchyard.components.compat.tfx_components import beam_pipeline
from switchyard.components.data.schema import NO_VALUE
from switchyard.components.data.summary import split_files
from switchyard.components.data.tfrecords import read_batches
from switchyard.components.data_gate.statistics import Statistics, common, features_of, has_values, read_statistics, type_name

SCHEMA_FILE = "schema.pbtxt"


class StatisticsExecutor(statistics_executor.Executor):
    """TFX's executor with the patch for fine quantiles in its process, and without Beam for examples that fit in memory."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class."""
        options = stats_options()
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        files = {s: split_files(examples.uri, s) for s in artifact_utils.decode_split_names(examples.split_names)}
        if tfdv_in_memory.PRIVATE.fits() and fit_in_memory(itertools.chain(*files.values()), beam_pipeline(self).options):
            _compute_in_memory(files, examples, artifact_utils.get_single_instance(output_dict["statistics"]), options)
        else:
            super().Do(input_dict, output_dict, {**exec_properties, STATS_OPTIONS_JSON_KEY: options.to_json()})


def _compute_in_memory(files: Mapping[str, Sequence[str]], examples: Any, statistics: Any, options: tfdv.StatsOptions) -> None:
    """Writes the files and the artifact's properties that TFX's executor writes."""
    statistics.split_names, statistics.span = artifact_utils.encode_split_names(list(files)), examples.span
    link = stats_utils.generate_stats_dashboard_link(statistics)
    statistics.set_string_custom_property(statistics_executor.STATS_DASHBOARD_LINK, link)
    shares = json_utils.dumps(dict.fromkeys(files, 1.0))
    statistics.set_json_value_custom_property(statistics_executor.SAMPLE_RATE_BY_SPLIT_PROPERTY_NAME, shares)
    for split, paths in files.items():
        found = tfdv_in_memory.statistics_of(itertools.chain.from_iterable(map(read_batches, paths)), options)
        path = Path(artifact_utils.get_split_uri([statistics], split)) / statistics_executor.DEFAULT_FILE_NAME
        io_utils.write_bytes_file(str(path), found.SerializeToString())


class FineStatistics(StatisticsGen):
    """Statistics with a hundred quantiles of each numeric feature, for drift."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(StatisticsExecutor)

    def __init__(self, examples: Any) -> None:
        super().__init__(examples=examples)
        # Only differences from TFDV's defaults enter the cache key; the executor sets the full options.
        self.spec.exec_properties[STATS_OPTIONS_JSON_KEY] = json.dumps({"num_quantiles_histogram_buckets": BUCKETS})


class SchemaExecutor(schema_executor.Executor):
    """TFX's executor, whose schema is then widened to the other splits."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class."""
        super().Do(input_dict, output_dict, exec_properties)
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        splits = artifact_utils.decode_split_names(statistics.split_names)
        found = {s: read_statistics(Path(statistics.uri) / f"Split-{s}" / "FeatureStats.pb") for s in splits}
        path = str(Path(artifact_utils.get_single_uri(output_dict["schema"])) / SCHEMA_FILE)
        schema = tfdv.load_schema_text(path)
        widen(schema, found["train"], [s for split, s in found.items() if split != "train"])
        tfdv.write_schema_text(schema, path)


class InferredSchema(SchemaGen):
    """A schema inferred from the training split that also parses the rows of the other splits."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(SchemaExecutor)


def widen(schema: schema_pb2.Schema, train: Statistics, others: Sequence[Statistics]) -> None:
    """Widens a schema to the missing values, value counts and types of the other splits."""
    trained = features_of(train)
    by_name = {f.name: f for f in schema.feature}
    for other in others:
        for name, seen in features_of(other).items():
            if not has_values(seen):
                if name in by_name:
                    _may_be_missing(by_name[name])
                continue
            if name not in trained or not has_values(trained[name]):
                by_name[name] = _without_values(schema, by_name.get(name), name, seen)
            elif common(seen).num_missing:
                _may_be_missing(by_name[name])
            _allow_numbers_of_values(by_name[name], seen)
        for name in by_name.keys() - features_of(other).keys():
            _may_be_missing(by_name[name])


def _may_be_missing(feature: schema_pb2.Feature) -> None:
    feature.presence.Clear()
    if feature.HasField("shape"):
        feature.value_count.min = feature.value_count.max = _size(feature)


def _allow_numbers_of_values(feature: schema_pb2.Feature, seen: Any) -> None:
    counts = common(seen)
    if feature.HasField("shape"):
        if counts.min_num_values == counts.max_num_values == _size(feature):
            return
        feature.value_count.min = feature.value_count.max = _size(feature)
    if feature.HasField("value_count"):
        feature.value_count.min = min(feature.value_count.min, counts.min_num_values)
        feature.value_count.max = max(feature.value_count.max, counts.max_num_values)


def _size(feature: schema_pb2.Feature) -> int:
    return math.prod(d.size for d in feature.shape.dim)


def _without_values(schema: schema_pb2.Schema, feature: Any, name: str, seen: Any) -> schema_pb2.Feature:
    if feature is None:
        feature = schema.feature.add(name=name)
    feature.type = schema_pb2.FeatureType.Value({"STRING": "BYTES"}.get(type_name(seen), type_name(seen)))
    feature.presence.Clear()
    feature.value_count.min = feature.value_count.max = 1
    if NO_VALUE not in feature.annotation.tag:
        feature.annotation.tag.append(NO_VALUE)
    return feature
