"""Cached start-up lookups of Beam equal what Beam finds without the cache."""

import subprocess
import sys

import pytest

from tests.command import REPOSITORY, environment

pytestmark = pytest.mark.core

CHECK = """
import apache_beam as beam
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, SetupOptions, TypeOptions
from apache_beam.transforms import core
from apache_beam.transforms.userstate import get_dofn_specs
from apache_beam.testing.util import assert_that, equal_to

class Scale(beam.DoFn):
    def __init__(self, by):
        self.by = by
    def process(self, element, window=beam.DoFn.WindowParam, offset=1):
        yield element * self.by + offset

def asked():
    dofns = [Scale(2), Scale(3), core.CallableWrapperDoFn(lambda x, y=4: x + y)]
    arguments = [core.get_function_arguments(d, m) for d in dofns for m in ("process", "setup", "finish_bundle")]
    found = []
    for flags in ([], ["--experiments=a", "--experiments=b", "--no_pipeline_type_check"]):
        options = PipelineOptions(flags)
        found += [options.view_as(c).get_all_options(current_only=True) for c in (DebugOptions, SetupOptions, TypeOptions)]
    return arguments, found, [get_dofn_specs(d) for d in dofns]

before = asked()
from switchyard.components.compat import beam_caches
beam_caches.install()
beam_caches.install()
assert asked() == before == asked()

# Options of one pipeline stay its own.
one, other = (PipelineOptions(["--experiments=a"]) for _ in range(2))
one.view_as(DebugOptions).add_experiment("c")
assert one.view_as(DebugOptions).experiments == ["a", "c"]
assert other.view_as(DebugOptions).experiments == ["a"]
one.view_as(TypeOptions).pipeline_type_check = False
assert other.view_as(TypeOptions).pipeline_type_check and not one.view_as(TypeOptions).pipeline_type_check

runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
for _ in range(2):
    with beam.Pipeline(runner=runner, options=PipelineOptions([])) as pipeline:
        scaled = pipeline | beam.Create([1, 2]) | beam.ParDo(Scale(2)) | "again" >> beam.ParDo(Scale(3), offset=5)
        assert_that(scaled, equal_to([14, 20]))
"""


def test_beams_startup_lookups_are_cached():
    """Runs in a separate process, since the cache lasts as long as its process."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
