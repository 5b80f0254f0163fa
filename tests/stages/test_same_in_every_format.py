"""A table means the same as CSV, JSON Lines, Parquet and TFRecord: in training, batch prediction, serving and evaluation."""

import datetime
import json

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder, RecordBatchToExamplesEncoder

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import read_batches, scan
from switchyard.components.ingest.typed import TypedColumns
from switchyard.components.ingest.writer import row_hashes
from switchyard.components.serving import invocations
from switchyard.components.serving.inputs import columns_of
from switchyard.components.values.conversion import fit_frame, fit_rows
from switchyard.components.values.raw_features import Ragged, raw_feature
from tests.ingest_inputs import input_spec

pytestmark = pytest.mark.core

FORMATS = ("csv", "jsonl", "parquet", "tfrecord")
NUMBERLIKE = {"nan", "inf", "infinity", "true", "false"}

words = st.sampled_from(["NA", "null", "None", "nan", "N/A"])
letters = st.text(st.characters(categories=["L"]), min_size=1, max_size=4).filter(lambda t: t.lower() not in NUMBERLIKE)
texts = st.builds("x {}".format, letters) | st.sampled_from(["Ulm", 'a "b", c', "007b", "ä"])
moments = st.datetimes(datetime.datetime(1800, 1, 1), datetime.datetime(2200, 1, 1))
# Columns by what they hold: what any of the formats can write.
KINDS = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": moments,
    "seconds": moments.map(lambda t: t.replace(microsecond=0)),
    "time": st.times(),
    "text": texts | words,
}
ARROW = {
    "integer": pa.int64(), "float": pa.float64(), "boolean": pa.bool_(), "date": pa.date32(), "timestamp": pa.timestamp("us"),
    "seconds": pa.timestamp("ns"), "time": pa.time64("us"), "text": pa.string(),
}  # fmt: skip


@st.composite
def tables(draw):
    """Returns column -> kind, column -> values, and labels; a column of text has at least one text that is no word."""
    rows = draw(st.integers(2, 8))
    kinds = {f"{'dacb'[i]}{i}": k for i, k in enumerate(draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4)))}
    columns = {}
    for name, kind in kinds.items():
        values = KINDS[kind] | st.none() if draw(st.booleans()) else KINDS[kind]
        first = st.just("x y") if kind == "text" else KINDS[kind]
        columns[name] = [draw(first), *draw(st.lists(values, min_size=rows - 1, max_size=rows - 1))]
    return kinds, columns, [i % 2 for i in range(rows)]


def as_text(kind, value):
    if value is None:
        return ""
    if kind in ("timestamp", "seconds"):
        return value.isoformat(" ")
    return value.isoformat() if kind in ("date", "time") else str(value)


def as_json(kind, value):
    return value if value is None or kind in ("integer", "float", "boolean", "text") else value.isoformat()


def as_feature(kind, value):
    if value is None:
        return tf.train.Feature()
    if kind in ("integer", "boolean"):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
    if kind == "float":
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[as_text(kind, value).encode()]))


def write(folder, kinds, columns, labels):
    """Writes the table in every format; returns its rows as JSON has them, without the label."""
    cells = {n: [as_text(kinds[n], v) for v in vs] for n, vs in columns.items()}
    pd.DataFrame({**cells, "y": labels}).to_csv(folder / "d.csv", index=False)
    records = [{n: as_json(kinds[n], vs[i]) for n, vs in columns.items()} for i in range(len(labels))]
    (folder / "d.jsonl").write_text("".join(json.dumps({**r, "y": y}) + "\n" for r, y in zip(records, labels, strict=True)))
    table = pa.table({n: pa.array(vs, ARROW[kinds[n]]) for n, vs in columns.items()} | {"y": pa.array(labels)})
    pyarrow.parquet.write_table(table, folder / "d.parquet")
    with tf.io.TFRecordWriter(str(folder / "d.tfrecord")) as writer:
        for i, label in enumerate(labels):
            features = {n: as_feature(kinds[n], vs[i]) for n, vs in columns.items()} | {"y": as_feature("integer", label)}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return records


def spec_of(*paths):
    return input_spec(*paths, task="binary")


def one(batches):
    return pa.Table.from_batches(list(batches)).combine_chunks().to_batches()[0]


def ingested(*paths):
    """Returns what ingest writes: the columns of all rows, and what it notes of them."""
    spec = spec_of(*paths)
    found = scan(spec, BadRows(0))
    typed = TypedColumns(found.types, (), ["y"])
    examples = one(typed.convert(b) for p in spec.path for b in read_batches(spec, p, BadRows(0)))
    typed.check()
    columns = {n: f"{'list of ' * t.is_list}{t.kind}" for n, t in found.types.items()}
    facts = {
        "meanings": {n: t.meaning for n, t in found.types.items()},
        "spelled": {n: sorted(s) for n, s in typed.spelled.items()},
    }
    summary = DatasetSummary("f", [], columns, typed.missing, {}, 0, [], [], "y", "binary", [0, 1], {}, **facts)
    return examples, summary


def rows_of(path):
    """A file's rows as batch prediction reads them."""
    return one(read_batches(spec_of(path), str(path), BadRows(0)))


def decoded(examples):
    """Examples as evaluation reads them."""
    return ExamplesToRecordBatchDecoder().DecodeBatch(RecordBatchToExamplesEncoder().encode(examples))


def plain(columns):
    return {n: [c.values.tolist(), c.lengths.tolist()] if isinstance(c, Ragged) else c.tolist() for n, c in columns.items()}


def model_of(summary):
    features = [raw_feature(n, summary, None, None if summary.missing[n] else 1) for n in summary.columns if n != "y"]
    return BundleInfo("pytorch", "x:Y", "binary", "y", [0, 1], features)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(tables())
def test_a_table_gives_the_same_examples_and_splits_in_every_format(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("t")
    write(folder, *table)
    expected, _ = ingested(folder / "d.csv")
    for kind in FORMATS[1:]:
        found = ingested(folder / f"d.{kind}")[0]
        assert found.select(expected.schema.names).equals(expected), kind
        np.testing.assert_array_equal(row_hashes(found), row_hashes(expected))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(tables(), st.sampled_from(FORMATS))
def test_prediction_server_and_evaluation_give_a_model_the_same_input(tmp_path_factory, table, trained_on):
    folder = tmp_path_factory.mktemp("t")
    records = write(folder, *table)
    examples, summary = ingested(folder / f"d.{trained_on}")
    model = model_of(summary)
    evaluated = fit_rows(decoded(examples), model.features)
    expected = plain(evaluated.columns)

    predicted = {kind: fit_rows(rows_of(folder / f"d.{kind}"), model.features) for kind in FORMATS}
    body = orjson.dumps({"dataframe_records": records})
    served, _ = columns_of(model, invocations.decode(body, "application/json", model))
    frame, _ = columns_of(model, invocations.decode(csv_body(folder), "text/csv", model))
    parquet = pa.parquet.read_table(folder / "d.parquet").to_pandas(integer_object_nulls=True, date_as_object=True)

    assert evaluated.misfits == {}
    assert {kind: (p.misfits, plain(p.columns)) for kind, p in predicted.items()} == dict.fromkeys(FORMATS, ({}, expected))
    assert plain(served) == expected
    assert plain(frame) == expected
    assert plain(fit_frame(parquet, model.features)) == expected
    for i, record in enumerate(records):
        alone, _ = columns_of(model, invocations.decode(orjson.dumps({"instances": [record]}), "", model))
        assert plain(alone) == plain(fit_rows(decoded(examples.slice(i, 1)), model.features).columns)


def csv_body(folder):
    """The rows as a client sends them; quoted, as an empty line would be no row."""
    rows = pd.read_csv(folder / "d.csv", dtype=str, keep_default_na=False).drop(columns="y")
    return rows.to_csv(index=False, quoting=1).encode()


def test_files_of_several_formats_are_one_table(tmp_path):
    kinds = {"i": "integer", "f": "float", "b": "boolean", "d": "date", "t": "seconds", "w": "text"}
    day = datetime.datetime(2024, 5, 17, 9, 30)
    columns = {
        "i": [1, 2, None, 2**62 + 1], "f": [0.5, None, 1.0, -2.0], "b": [True, False, None, True],
        "d": [day.date()] * 4, "t": [day, None, day + datetime.timedelta(hours=1), day], "w": ["NA", "Ulm", None, "x"],
    }  # fmt: skip
    write(tmp_path, kinds, columns, [0, 1, 0, 1])
    alone, noted = ingested(tmp_path / "d.parquet")
    together, also_noted = ingested(*(tmp_path / f"d.{kind}" for kind in FORMATS))
    assert also_noted.columns == noted.columns
    assert also_noted.meanings == {**noted.meanings, "b": "integer"}, "a tf.Example has no boolean"
    assert together.select(alone.schema.names).equals(one([alone] * 4))
