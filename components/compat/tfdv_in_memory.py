"""Computes TFDV's statistics in this process, batch by batch, without a Beam pipeline.

TFDV's `generate_statistics_in_memory` takes one batch and estimates distinct values with sketches, where its Beam pipeline counts
them. Here TFDV's generators take the batches one after the other, and distinct values are counted: the pipeline's numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.generators import basic_stats_generator
from tensorflow_data_validation.utils import top_k_uniques_stats_util as top_k
from tensorflow_metadata.proto.v0 import statistics_pb2

from switchyard.components.compat.patch import Private

PRIVATE = Private(
    "tensorflow-data-validation",
    ("1.16", "1.21"),
    (
        "tensorflow_data_validation.statistics.stats_impl:extract_statistics_output",
        "tensorflow_data_validation.statistics.stats_impl:_get_default_generators",
        "tensorflow_data_validation.statistics.generators.basic_stats_generator:BasicStatsGenerator.__init__",
        "tensorflow_data_validation.statistics.generators.top_k_uniques_stats_generator:_ComputeTopKUniquesStats",
        "tensorflow_data_validation.utils.top_k_uniques_stats_util:make_feature_stats_proto_topk_uniques",
    ),
    "https://github.com/tensorflow/data-validation/blob/v1.16.1/tensorflow_data_validation/statistics/stats_impl.py",
)
_Counts = dict[str, list[pa.Table]]


def statistics_of(batches: Iterable[pa.RecordBatch], options: tfdv.StatsOptions) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Returns the statistics of decoded `tf.Example`s that TFDV's Beam pipeline computes.

    Args:
        batches: record batches whose columns are lists of values.
        options: without schema, weights, slices, sampling and generators of its own.
    """
    generators = [
        basic_stats_generator.BasicStatsGenerator(
            num_values_histogram_buckets=options.num_values_histogram_buckets,
            num_histogram_buckets=options.num_histogram_buckets,
            num_quantiles_histogram_buckets=options.num_quantiles_histogram_buckets,
            epsilon=options.epsilon,
        ),
        _TopK(options),
    ]
    partial = [g.create_accumulator() for g in generators]
    for batch in batches:
        partial = [g.add_input(p, batch) for g, p in zip(generators, partial, strict=True)]
    return stats_impl.extract_statistics_output(partial, generators)


class _TopK(tfdv.CombinerStatsGenerator):
    """Counts the distinct values of text columns and keeps the most frequent ones, like TFDV's `TopKUniquesStatsGenerator`.

    The accumulator maps a column to tables of `value` and `count`.
    """

    # Tables of one column are added up when they hold this many rows, and then at twice the rows that are left.
    _ROWS = 100_000

    def __init__(self, options: tfdv.StatsOptions) -> None:
        super().__init__("TopKUniques")
        self._options = options

    def create_accumulator(self) -> _Counts:
        return {}

    def add_input(self, accumulator: _Counts, input_record_batch: pa.RecordBatch) -> _Counts:
        for name, column in zip(input_record_batch.schema.names, input_record_batch.columns, strict=True):
            kind = getattr(column.type, "value_type", None)
            if kind is None or not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                continue
            counted = column.flatten().value_counts()
            if len(counted):
                tables = accumulator.setdefault(name, [])
                tables.append(pa.table({"value": counted.field("values"), "count": counted.field("counts")}))
                if sum(map(len, tables[1:])) > max(self._ROWS, len(tables[0])):
                    accumulator[name] = [_added(tables)]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Counts]) -> _Counts:
        merged: _Counts = {}
        for each in accumulators:
            for name, tables in each.items():
                merged.setdefault(name, []).extend(tables)
        return merged

    def extract_output(self, accumulator: _Counts) -> Any:
        result = statistics_pb2.DatasetFeatureStatistics()
        kept = max(self._options.num_top_values, self._options.num_rank_histogram_buckets)
        for name, tables in accumulator.items():
            counts = _added(tables)
            # A stable order: of equally frequent values TFDV keeps the larger ones.
            first = counts.sort_by([("count", "descending"), ("value", "descending")]).slice(0, kept)
            pairs = zip(first["value"].to_pylist(), first["count"].to_pylist(), strict=True)
            result.features.append(
                top_k.make_feature_stats_proto_topk_uniques(
                    feature_path=tfdv.FeaturePath([name]),
                    num_top_values=self._options.num_top_values,
                    num_rank_histogram_buckets=self._options.num_rank_histogram_buckets,
                    num_unique=len(counts),
                    value_count_list=[top_k.FeatureValueCount(value, count) for value, count in pairs],
                    frequency_threshold=self._options.frequency_threshold,
                )
            )
        return result


def _added(tables: list[pa.Table]) -> pa.Table:
    whole = pa.concat_tables(tables)
    return whole.group_by("value", use_threads=False).aggregate([("count", "sum")]).rename_columns(["value", "count"])
