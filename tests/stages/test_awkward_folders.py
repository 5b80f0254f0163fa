"""Beam, TensorFlow and MLflow below folders whose names mean something in globs and URLs."""

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems

from switchyard.components.compat import beam_local_globs, tensorflow_globs
from switchyard.components.data.tfrecords import ReadExamples
from switchyard.components.ingest.sources import find_files
from switchyard.components.text.escaping import sqlite_uri
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import register_model, versions
from tests.security.test_journals import bundle, model

pytestmark = pytest.mark.core
NAMES = ["a%20b", "x[v1] a%20b?c#1 'q\" ü@h*"]


@pytest.fixture(params=NAMES)
def folder(request, tmp_path):
    beam_local_globs.install()
    tensorflow_globs.install()
    place = tmp_path / request.param
    place.mkdir()
    # What the name would match.
    for other in ("v", "1", "axb", "a b"):
        (tmp_path / other).mkdir(exist_ok=True)
        (tmp_path / other / "f1.csv").touch()
    return place


def test_beam_finds_exactly_the_existing_files(folder):
    for name in ("f1.csv", "f2.csv", "g.txt"):
        (folder / name).touch()
    found = FileSystems.match([str(folder / "f*.csv"), str(folder / "g.txt")])
    assert sorted(m.path for r in found for m in r.metadata_list) == sorted(
        str(folder / n) for n in ("f1.csv", "f2.csv", "g.txt")
    )


def test_beam_writes_a_file(folder):
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        _ = pipeline | beam.Create(["x"]) | beam.io.WriteToText(str(folder / "out"), shard_name_template="")
    assert (folder / "out").read_text() == "x\n"


def test_a_saved_model_with_variables_is_loaded(folder):
    module = tf.Module()
    module.weight = tf.Variable(41.0)
    module.call = tf.function(lambda: module.weight + 1, input_signature=[])
    tf.saved_model.save(module, str(folder / "model"))
    assert tf.saved_model.load(str(folder / "model")).call().numpy() == 42.0


def test_examples_are_read(folder):
    with tf.io.TFRecordWriter(str(folder / "part-0")) as writer:
        value = tf.train.Feature(int64_list=tf.train.Int64List(value=[7]))
        writer.write(tf.train.Example(features=tf.train.Features(feature={"a": value})).SerializeToString())
    (folder.parent / "out.txt").touch()
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        rows = pipeline | ReadExamples([str(folder / "*")]) | beam.Map(lambda batch: batch.num_rows)
        _ = rows | beam.Map(str) | beam.io.WriteToText(str(folder.parent / "out.txt"), shard_name_template="")
    assert (folder.parent / "out.txt").read_text() == "1\n"


def test_data_is_found_by_a_glob(folder):
    (folder / "d1.csv").write_text("a\n1\n")
    assert find_files([str(folder / "*.csv")]) == [str(folder / "d1.csv")]


def test_mlflows_database_and_files_are_written_only_there(folder):
    before = sorted(folder.parent.iterdir())
    uri = sqlite_uri(folder / "mlflow.db")
    experiment = tracking.ensure_experiment(uri, "e", folder / "mlflow")
    run = tracking.Run(uri, tracking.create_run(uri, experiment, "r", {}))
    run.text("hello", "note.txt")
    run.end("FINISHED")
    assert not run.offline
    assert (folder / "mlflow" / run.run_id / "artifacts" / "note.txt").read_text() == "hello"
    assert sorted(folder.parent.iterdir()) == before


def test_a_bundle_below_it_is_registered_once(folder):
    uri = sqlite_uri(folder / "mlflow.db")
    experiment = tracking.ensure_experiment(uri, "e", folder / "mlflow")
    client = tracking.client(uri)
    described = model("m", bundle(folder / "bundle"))["model"]
    for _ in range(2):
        register_model(client, tracking.create_run(uri, experiment, "r", {}), described)
    assert [v.version for v in versions(client, "m")] == ["1"]
