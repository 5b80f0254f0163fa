"""Files as other programs write them: separators at the end of lines, R's names of rows, Arrow's extension types."""

import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import EMPTY
from switchyard.components.ingest.keys import key_hashes
from switchyard.components.ingest.readers import read_csv
from switchyard.components.ingest.scan import read_batches, scan
from tests.ingest_inputs import input_spec


def read(spec):
    [batch] = read_batches(spec, spec.path[0], BadRows(0))
    return batch


def csv(folder, *lines):
    path = folder / "d.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_unnamed_trailing_columns_without_values_are_columns_without_values(tmp_path):
    spec = input_spec(csv(tmp_path, "x,y,,", "1,0,,", "2,1,,"))
    found = scan(spec, BadRows(0))
    assert [n for n, t in found.types.items() if t.kind == EMPTY] == ["Unnamed: 2", "Unnamed: 3"]
    assert read(spec).select(["x", "y"]).to_pydict() == {"x": ["1", "2"], "y": ["0", "1"]}


def test_a_trailing_separator_in_the_header_adds_no_column(tmp_path):
    spec = input_spec(csv(tmp_path, "x,y,", "1,0", "2,1"))
    assert scan(spec, BadRows(0)).rows == 2
    assert read(spec).to_pydict() == {"x": ["1", "2"], "y": ["0", "1"]}


def test_an_unnamed_column_with_a_value_is_refused(tmp_path):
    with pytest.raises(UserError, match="column 4 has no name"):
        scan(input_spec(csv(tmp_path, "x,y,,", "1,0,,", "2,1,,7")), BadRows(0))


@pytest.mark.parametrize("names", ["1,2,3,4", "ann,bob,eve,joe"])
def test_unnamed_row_names_of_r_are_excluded_and_reported(names, tmp_path):
    lines = [f'"{n}",{i},{i % 2}' for i, n in enumerate(names.split(","))]
    spec = input_spec(csv(tmp_path, '"x","y"', *lines))
    found = scan(spec, BadRows(0))
    assert list(found.types) == ["x", "y"]
    assert found.notes[0].startswith("skipped '', an index")
    assert read(spec).to_pydict() == {"x": ["0", "1", "2", "3"], "y": ["0", "1", "0", "1"]}


def test_a_surplus_field_that_is_no_row_name_is_refused(tmp_path):
    with pytest.raises(UserError, match="column 1 has no name and is not a row index"):
        scan(input_spec(csv(tmp_path, "x,y", "a,1,0", "a,2,1", "b,3,1")), BadRows(0))


def test_lines_with_a_surplus_separator_are_bad_rows_and_shift_no_value(tmp_path):
    with pytest.raises(UserError, match="3 fields where the header has 2"):
        scan(input_spec(csv(tmp_path, "x,y", "1,0,", "2,1,")), BadRows(0))


def test_a_first_row_with_a_surplus_field_is_one_bad_row(tmp_path):
    bad = BadRows(1)
    assert scan(input_spec(csv(tmp_path, "x,y", "1,2,0", "1,0", "2,1"), max_bad_rows=1), bad).rows == 2
    assert bad.count == 1


def test_a_name_of_two_lines_is_one_name(tmp_path):
    spec = input_spec(csv(tmp_path, '"x', '1",y', "1,0", "2,1"))
    assert read(spec).to_pydict() == {"x\n1": ["1", "2"], "y": ["0", "1"]}


def test_a_ragged_row_below_a_name_of_two_lines_has_its_number(tmp_path):
    with pytest.raises(UserError, match="record 2: 1 fields where the header has 2"):
        scan(input_spec(csv(tmp_path, '"x', '1",y', "1,0", "2")), BadRows(0))


@pytest.mark.parametrize("text", ["x,y", "x,y\n", "x,y,"])
def test_a_header_alone_has_no_rows(text, tmp_path):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(UserError, match="no rows in"):
        scan(input_spec(tmp_path / "d.csv"), BadRows(0))


def test_a_text_longer_than_the_limit_of_pythons_csv_reader_is_read(tmp_path):
    long = "z" * 200_000
    spec = input_spec(csv(tmp_path, "x,y", f"{long},0", "2,1"))
    assert read(spec).to_pydict() == {"x": [long, "2"], "y": ["0", "1"]}


def test_endless_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="the first line has more than 8 MiB"):
        scan(input_spec(csv(tmp_path, "a," * (5 << 20))), BadRows(0))


def test_endless_separators_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"column 2, 3, .*, 21 and 999,979 more has no name") as caught:
        scan(input_spec(csv(tmp_path, "a" + "," * 999_999)), BadRows(0))
    assert len(str(caught.value)) < 1000


def test_an_index_stored_repeatedly_is_excluded_and_reported(tmp_path):
    rows = pd.DataFrame({"x": [5, 7, 5, 7], "y": [0, 1, 1, 0]})
    for _ in range(3):
        rows.to_csv(tmp_path / "d.csv")
        rows = pd.read_csv(tmp_path / "d.csv")
    found = scan(input_spec(tmp_path / "d.csv"), BadRows(0))
    assert list(found.types) == ["x", "y"]
    assert found.notes[0].startswith("skipped '', 'Unnamed: 0', 'Unnamed: 0.1', an index")


def test_a_uuid_is_one_key_and_one_value_as_a_type_of_parquet_and_as_a_text(tmp_path):
    names = [uuid.UUID(int=i * 2**96 + 7) for i in range(20)]
    typed = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([n.bytes for n in names], pa.binary(16)))
    pa.parquet.write_table(pa.table({"user": typed, "x": range(20), "y": [0, 1] * 10}), tmp_path / "a.parquet")
    pd.DataFrame({"user": map(str, names), "x": range(20), "y": [0, 1] * 10}).to_csv(tmp_path / "b.csv", index=False)
    columns = []
    for name in ("a.parquet", "b.csv"):
        spec = input_spec(tmp_path / name, split_key="user")
        scan(spec, BadRows(0))
        columns.append(read(spec).column("user"))
    assert columns[0].to_pylist() == columns[1].to_pylist() == [str(n) for n in names]
    rows = np.zeros(20, dtype=np.uint64)
    assert key_hashes(columns[0], rows).tolist() == key_hashes(columns[1], rows).tolist()


def test_extension_types_are_read_beside_texts(tmp_path):
    """Texts are read by references to the file's dictionary, and then given the types that the file names."""
    typed = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=7).bytes, None], pa.binary(16)))
    pa.parquet.write_table(pa.table({"u": typed, "s": ["a", "b"], "y": [0, 1]}), tmp_path / "d.parquet")
    assert read(input_spec(tmp_path / "d.parquet")).to_pydict() == {
        "u": [str(uuid.UUID(int=7)), None],
        "s": ["a", "b"],
        "y": [0, 1],
    }


def test_booleans_of_one_byte_are_booleans(tmp_path):
    typed = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None, 1], pa.int8()))
    pa.parquet.write_table(pa.table({"x": typed, "y": [0, 1] * 2}), tmp_path / "d.parquet")
    assert scan(input_spec(tmp_path / "d.parquet"), BadRows(0)).types["x"].meaning == "boolean"


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1"])
def test_the_index_of_concatenated_and_shuffled_tables_is_excluded_and_reported(name, tmp_path):
    index = np.random.default_rng(0).permutation(np.concatenate([np.arange(40), np.arange(30), np.arange(30)]))
    pd.DataFrame({name: index, "x": index, "y": [0, 1] * 50}).to_csv(tmp_path / "d.csv", index=False)
    found = scan(input_spec(tmp_path / "d.csv"), BadRows(0))
    assert list(found.types) == ["x", "y"]
    assert found.notes[0].startswith(f"skipped {name!r}, an index")


def test_a_first_line_of_more_than_a_megabyte_is_read_whole(tmp_path):
    names = [f"measured_{i:08d}" for i in range(70_000)]
    path = tmp_path / "d.csv"
    path.write_text(",".join([*names, "y"]) + "\n" + ",".join(["1"] * 70_001) + "\n")
    assert path.read_text().index("\n") > 1 << 20
    [batch] = read_csv(str(path), BadRows(0), None)
    assert batch.schema.names == [*names, "y"]
