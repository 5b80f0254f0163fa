"""Numbers that float32 cannot hold: refused before training with their place, or missing by the config."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import read_batches, scan
from switchyard.components.ingest.typed import TypedColumns
from tests.ingest_inputs import input_spec

INF = float("inf")


def written(folder, values, ending):
    rows = pd.DataFrame({"x": values, "y": [i % 2 for i in range(len(values))]})
    path = folder / f"d.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows.to_dict("records")))
    elif ending == "csv.gz":
        path.write_bytes(gzip.compress(rows.to_csv(index=False).encode()))
    else:
        rows.to_parquet(path, index=False) if ending == "parquet" else rows.to_csv(path, index=False)
    return path


def spec_of(path, missing=None):
    return input_spec(path, missing_values=missing)


def converted(spec):
    types = scan(spec, BadRows(0)).types
    typed = TypedColumns(types, spec.missing_values or (), spec.labels)
    [batch] = [typed.convert(b) for b in read_batches(spec, spec.path[0], BadRows(0))]
    return batch.column("x").to_pylist()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
@pytest.mark.parametrize(("value", "shown"), [(INF, "inf"), (-INF, "-inf"), (1e300, r"1e\+300")])
@pytest.mark.parametrize("peek", [True, False])
def test_a_number_that_float32_cannot_hold_is_refused_with_its_row_and_the_key(value, shown, ending, peek, tmp_path):
    path = written(tmp_path, [0.5, 2.0, value, 3.0], ending)
    with pytest.raises(UserError, match=rf"{path.name}, row 2: column 'x' .* data.missing_values: \[{shown}\]"):
        scan(spec_of(path), BadRows(0), peek=peek)


def test_an_infinite_number_in_a_list_is_refused_with_its_row(tmp_path):
    pa.parquet.write_table(pa.table({"x": [[1.0, 2.0], [3.0, INF]], "y": [0, 1]}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match="row 1: column 'x'"):
        scan(spec_of(tmp_path / "d.parquet"), BadRows(0))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_infinity_configured_as_missing_is_missing(ending, tmp_path):
    assert converted(spec_of(written(tmp_path, [0.5, INF, 3.0, -INF], ending), ["inf", "-inf"])) == [[0.5], None, [3.0], None]


def test_a_list_of_half_floats_is_a_list_of_numbers(tmp_path):
    halves = pa.array([[np.float16(1.5), np.float16(2.5)], [np.float16(0.5), np.float16(4)]], pa.list_(pa.float16()))
    pa.parquet.write_table(pa.table({"x": halves, "y": [0, 1]}), tmp_path / "d.parquet")
    assert converted(spec_of(tmp_path / "d.parquet")) == [[1.5, 2.5], [0.5, 4.0]]


@pytest.mark.parametrize("texts", [["0x10", "0x1F", "0xff"], ["0xffffffffffffffff", "0x1", "0X2"]])
def test_hexadecimal_texts_are_not_numbers(texts, tmp_path):
    assert converted(spec_of(written(tmp_path, texts, "csv"))) == [[t.encode()] for t in texts]
