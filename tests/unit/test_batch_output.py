"""From parts to one file of predictions."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.errors import UserError
from switchyard.components.prediction.output import assemble

NESTED = "lists of lists or objects"
LISTS = [pa.list_(pa.int64()), pa.large_list(pa.int64())]


def part(folder, values, kind):
    path = folder / "0.parquet"
    pa.parquet.write_table(pa.table({"x": pa.array(values, kind), "p": [0.5] * len(values)}), path)
    return [path]


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_lists_of_one_value_are_written_as_the_value_to_a_csv(kind, tmp_path):
    assert assemble(part(tmp_path, [[5], [], None, [7]], kind), tmp_path / "out.csv", "csv") == 4
    assert (tmp_path / "out.csv").read_text() == '"x","p"\n5,0.5\n,0.5\n,0.5\n7,0.5\n'


def test_a_tsv_is_written_with_tabs(tmp_path):
    assemble(part(tmp_path, ["a,b", None], pa.string()), tmp_path / "out.tsv", "csv")
    assert (tmp_path / "out.tsv").read_text() == '"x"\t"p"\n"a,b"\t0.5\n\t0.5\n'


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_longer_lists_are_refused_in_a_csv_and_kept_in_json_lines(kind, tmp_path):
    parts = part(tmp_path, [[5, 6]], kind)
    with pytest.raises(UserError, match="'x' holds lists, which CSV does not support"):
        assemble(parts, tmp_path / "out.csv", "csv")
    assemble(parts, tmp_path / "out.jsonl", "jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{"x":[5,6],"p":0.5}\n'


def test_a_column_of_lists_beside_texts_of_other_parts_becomes_text(tmp_path):
    for i, values in enumerate([[[1, 2]], ["a"], [{"b": 1}]]):
        pa.parquet.write_table(pa.table({"x": values}), tmp_path / f"{i}.parquet")
    assemble(sorted(tmp_path.glob("?.parquet")), tmp_path / "out.jsonl", "jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{"x":"[1, 2]"}\n{"x":"a"}\n{"x":"{\\"b\\": 1}"}\n'


@pytest.mark.parametrize("kind", ["csv", "tfrecord"])
@pytest.mark.parametrize(("value", "what"), [({"a": [1, 2]}, "objects"), ([{"a": 1}], NESTED), ([[1]], NESTED)])
def test_objects_are_refused_where_the_format_has_none_and_kept_elsewhere(kind, value, what, tmp_path):
    [path] = part(tmp_path, [value, None], None)
    target, name = tmp_path / f"out.{kind}", {"csv": "CSV", "tfrecord": "TFRecord"}[kind]
    with pytest.raises(UserError, match=f"'x' holds {what}, which {name} does not support. Write .parquet or .jsonl"):
        assemble([path], target, kind)
    assert not target.exists()
    for kept in ("jsonl", "parquet"):
        assemble([path], tmp_path / f"out.{kept}", kept)
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["x"] == value
    assert pa.parquet.read_table(tmp_path / "out.parquet")["x"][0].as_py() == value


def test_objects_of_a_later_part_are_refused_in_a_csv(tmp_path):
    for i, values in enumerate([["a"], [{"b": 1}]]):
        pa.parquet.write_table(pa.table({"x": values}), tmp_path / f"{i}.parquet")
    with pytest.raises(UserError, match="'x' holds objects, which CSV does not support"):
        assemble(sorted(tmp_path.glob("?.parquet")), tmp_path / "out.csv", "csv")
