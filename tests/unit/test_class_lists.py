"""Labels that list the classes of each row: read in every form, refused with row and fix where they are no list."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scan import read_batches, scan
from switchyard.pipelines.api.compare import _encoded, _labelled
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.preflight import check_task
from tests.ingest_inputs import input_spec

LISTS = [["rock", "pop"], [], ["jazz"], ["pop", "pop"]]
NAMES = ["jazz", "pop", "rock"]


def spec(path, **settings):
    return input_spec(path, **{"label": "tags", "task": "multilabel", **settings})


def rows(values, **more):
    return pd.DataFrame({"x": range(len(values)), "tags": values, **more})


def test_each_class_becomes_a_column_of_its_own_sorted_by_name(tmp_path):
    rows(LISTS).to_json(tmp_path / "d.jsonl", orient="records", lines=True)
    found = scan(spec(tmp_path / "d.jsonl"), BadRows(0))
    assert (found.targets, found.classes, found.task) == (NAMES, [], "multilabel")
    assert list(found.types) == ["x", *NAMES]
    [batch] = read_batches(spec(tmp_path / "d.jsonl", targets=found.targets), str(tmp_path / "d.jsonl"), BadRows(0))
    assert batch.select(NAMES).to_pydict() == {"jazz": [0, 0, 1, 0], "pop": [1, 0, 0, 1], "rock": [1, 0, 0, 0]}


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        ([json.dumps(tags) for tags in LISTS], {}),
        (["rock|pop", "[]", "jazz", " pop | pop"], {"label_separator": "|"}),
        (["rock, pop", "[]", '["jazz"]', "pop"], {"label_separator": ","}),
    ],
)
def test_texts_are_json_lists_or_classes_between_separators(tmp_path, texts, settings):
    rows(texts).to_csv(tmp_path / "d.csv", index=False)
    given = spec(tmp_path / "d.csv", targets=NAMES, **settings)
    [batch] = read_batches(given, str(tmp_path / "d.csv"), BadRows(0))
    assert batch.select(NAMES).to_pydict() == {"jazz": [0, 0, 1, 0], "pop": [1, 0, 0, 1], "rock": [1, 0, 0, 0]}


def test_a_text_in_a_list_of_one_is_read_as_a_text_if_there_is_a_separator(tmp_path):
    """As in tf.Example, which has lists only."""
    rows([["rock|pop"], [], ["jazz"], ["pop"]]).to_parquet(tmp_path / "d.parquet")
    assert scan(spec(tmp_path / "d.parquet", label_separator="|"), BadRows(0)).targets == NAMES
    assert scan(spec(tmp_path / "d.parquet"), BadRows(0)).targets == ["jazz", "pop", "rock|pop"]


def test_numbers_and_booleans_are_classes_by_their_text(tmp_path):
    rows([[1, 2], [2], []]).to_parquet(tmp_path / "d.parquet")
    assert scan(spec(tmp_path / "d.parquet"), BadRows(0)).targets == ["1", "2"]
    rows([[True, False], [False]]).to_parquet(tmp_path / "e.parquet")
    assert scan(spec(tmp_path / "e.parquet"), BadRows(0)).targets == ["false", "true"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a|b", "is no JSON list such as"),
        ("[a, b]", "is no JSON list such as"),
        ('["a", ""]', "has an empty class name"),
        ('["a\\u0000"]', "has a class name with a NUL character"),
        ('["a", null]', "has an item that is no class name"),
        ('[["a"]]', "has an item that is no class name"),
        ("", "is missing; a row without classes has the list []"),
        ("NA", "is missing"),
    ],
)
def test_a_row_whose_label_is_no_list_is_a_bad_row(tmp_path, value, reason):
    rows(['["a"]', '["b"]', value]).to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(UserError, match=re.escape(reason)):
        scan(spec(tmp_path / "d.csv"), BadRows(0))
    bad = BadRows(1)
    assert scan(spec(tmp_path / "d.csv"), bad).rows == 2
    assert bad.count == 1


def test_missing_labels_of_a_batch_are_one_finding_with_their_number(tmp_path):
    """Not the same line for each of them, which would hide the other reasons among the first five."""
    rows(["a|b", "NA", "", "[]", '["a"]', '["b"]']).to_csv(tmp_path / "d.csv", index=False)
    bad = BadRows(3)
    assert scan(spec(tmp_path / "d.csv"), bad).rows == 3
    first, second = (s["reason"] for s in bad.samples)
    assert first.startswith("row 0: the label 'tags' ")
    assert first.endswith('is no JSON list such as ["a", "b"], and data.label_separator, which separates its classes, is not set')
    assert second == "the label 'tags' is missing; a row without classes has the list []"
    assert bad.count == 3


def test_a_bad_label_is_named_by_its_row_in_the_file_after_other_bad_rows(tmp_path):
    data = rows(['["a"]', '["b"]', '["a"]', "[1, null]"]).assign(n=["x", "1", "2", "3"])
    data.to_csv(tmp_path / "d.csv", index=False)
    bad = BadRows(2)
    assert scan(spec(tmp_path / "d.csv", columns={"n": "number"}), bad).rows == 2
    assert [s["reason"].partition(":")[0] for s in bad.samples] == ["row 0", "row 3"]


@pytest.mark.parametrize(
    ("values", "more", "reason"),
    [
        ([["a"], ["a"]], {}, "has only the class 'a'"),
        ([[], []], {}, "has no class in any row"),
        ([["x"], ["b"]], {}, "'x' is a class of 'tags' and the name of a column"),
        ([["tags"], ["b"]], {}, "'tags' is a class of 'tags' and the name of a column"),
        ([[str(i)] for i in range(1001)], {}, "more than 1000 classes"),
        ([0.5, 1.5], {}, "holds double; the label of a multilabel task is a list of class names"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(tmp_path, values, more, reason):
    rows(values, **more).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(UserError, match=reason):
        scan(spec(tmp_path / "d.parquet"), BadRows(0))


def test_a_class_that_appears_after_the_first_pass_ends_the_run(tmp_path):
    rows(LISTS).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(UserError, match=r"rock of 'tags'.*the file changed during the run"):
        list(read_batches(spec(tmp_path / "d.parquet", targets=["jazz", "pop"]), str(tmp_path / "d.parquet"), BadRows(0)))


def test_a_missing_label_column_is_named(tmp_path):
    rows(LISTS).rename(columns={"tags": "tag"}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(UserError, match=r"no column 'tags'\. Did you mean 'tag'\?"):
        scan(spec(tmp_path / "d.parquet"), BadRows(0))


INFO = BundleInfo("pytorch", "pytorch", "multilabel", "tags", [], [], targets=["a", "b"])


def labels_of_file(values, separator=""):
    """The labels of `models compare --data`, of the rows that have one."""
    frame = pd.DataFrame({"x": range(len(values)), "tags": values})
    summary = SimpleNamespace(group=None, label_separator=separator)
    return _encoded(_labelled(frame, INFO, summary, Path("d")), INFO, [], summary, Path("d")).tolist()


def test_lists_of_a_file_are_compared_as_they_are_trained():
    expected = [[1, 1], [0, 0], [0, 1]]
    assert labels_of_file([["a", "b"], np.array([], object), None, np.array(["b"])]) == expected
    assert labels_of_file(['["a", "b"]', "[]", None, '["b"]']) == expected
    assert labels_of_file(["a|b", "[]", None, "b"], "|") == expected


@pytest.mark.parametrize(
    ("values", "why"),
    [([["c"]], "d: tags holds c; the models' classes are a, b"), (["a|b"], "is no JSON list"), ([None], "no row has a value of")],
)
def test_rows_of_a_file_with_another_class_or_no_list_are_not_compared(values, why):
    with pytest.raises(UserError, match=why):
        labels_of_file(values)


@pytest.mark.parametrize(
    "evaluation",
    [
        {"thresholds": {"auc/rock": {"lower_bound": 0.5}}},
        {"improvement": {"metric": "auc/rock"}},
        {"thresholds": {"auc/rock": {"lower_bound": 0.5}}, "improvement": {"metric": "accuracy/pop"}},
    ],
)
def test_metrics_of_a_class_are_accepted_before_the_classes_are_known(evaluation):
    data = {"path": "songs.csv", "label_separator": "|"}
    document = {"name": "songs", "data": data, "label": "tags", "task": "multilabel", "evaluation": evaluation}
    check_task(load_config(None, document=document), "multilabel")
    with pytest.raises(UserError, match=r"auc/rock|accuracy/pop"):
        check_task(load_config(None, document=document), "multilabel", ["jazz", "folk"])
