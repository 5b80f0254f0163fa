"""The Beam option up to which a stage computes in its own process instead of in a Beam pipeline."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from apache_beam.options.pipeline_options import PipelineOptions


class InMemoryOptions(PipelineOptions):
    """`in_memory_limit`: MiB of a stage's input files; 0, the default, always uses a Beam pipeline."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--in_memory_limit", type=int, default=0)


def fit_in_memory(files: Iterable[str], options: PipelineOptions) -> bool:
    """Whether files, which may be in an object store, are together no larger than the options' `in_memory_limit`."""
    limit = options.view_as(InMemoryOptions).in_memory_limit << 20
    if not limit:
        return False
    import tensorflow as tf

    return bool(sum(tf.io.gfile.stat(file).length for file in files) <= limit)
