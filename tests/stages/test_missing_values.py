"""Which cells count as missing, and the message about them before training."""

import pytest
import tensorflow as tf

from switchyard.components import progress
from switchyard.components.serving.tensorflow_serving import _present
from switchyard.components.values.conversion import fit_values
from switchyard.components.values.raw_features import RawFeature
from tests.stages.test_ingest import ingest

pytestmark = pytest.mark.core

ROWS = ["country,age,n,y", *[f"{c},{a},{i},{i % 2}" for i, (c, a) in enumerate([("NA", "30"), ("", "NA"), ("DE", "-")] * 20)]]


@pytest.fixture
def told():
    lines = []
    progress.set_sink(lines.append)
    yield lines
    progress.set_sink(None)


def test_a_word_is_a_value_of_a_text_column_and_missing_among_numbers(tmp_path, told):
    (tmp_path / "d.csv").write_text("\n".join(ROWS))
    summary, rows = ingest(tmp_path, path=[str(tmp_path / "d.csv")], missing_values=["-"])
    assert summary.columns == {"country": "string", "age": "integer", "n": "integer", "y": "integer"}
    assert summary.missing == {"country": 20, "age": 40, "n": 0, "y": 0}
    assert sorted({r["country"] or b"" for r in rows}) == [b"", b"DE", b"NA"]
    notes = [line for line in told if "cells" in line]
    assert notes == [
        "warning: country: 20 cells are the text NA: treated as a value; data.missing_values: [NA] treats it as missing",
        "warning: age: 20 cells are the text NA, 20 cells are the text -: treated as missing",
    ]


def test_the_config_makes_a_word_missing_in_text_too(tmp_path, told):
    (tmp_path / "d.csv").write_text("\n".join(ROWS))
    summary, rows = ingest(tmp_path, path=[str(tmp_path / "d.csv")], missing_values=["-", "NA"])
    assert summary.missing["country"] == 40
    assert summary.missing_values == ["-", "NA"]
    assert {r["country"] for r in rows} == {None, b"DE"}
    assert not any("treated as a value" in line for line in told)


def test_tensorflow_serving_takes_the_same_texts_as_missing():
    feature = RawFeature("work", "string", None, meaning="text", missing=["", " ?", "-"])
    texts = ["", "?", " ?", " - ", "a?", " Private", " "]
    found = _present(feature, tf.constant(texts)).numpy().tolist()
    assert found == [bool(row) for row in fit_values(texts, feature).values.to_pylist()]
    assert found == [False, False, False, False, True, True, True]
