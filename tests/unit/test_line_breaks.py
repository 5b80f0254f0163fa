"""A value with a line break is in no vocabulary: said where a column is looked up as a whole, and only there."""

import pytest

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.transform.line_breaks import line_break_notes

SUMMARY = DatasetSummary(
    "f", [], {"title": "string", "body": "string", "pages": "list of string", "old": "string"}, {}, {}, 0, [], [], "y", "binary",
    [0, 1], {}, sequences={"pages": {}}, broken_lines={"title": 2, "body": 1900, "pages": 3, "old": 1},
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"code": None, "unusable": {"old": "why"}}, ["title: 2", "body: 1,900", "pages: 3"]),
        ({"code": None, "tokenizer": {}, "texts": ["body"]}, ["title: 2", "pages: 3", "old: 1"]),
        ({"code": None, "tokenizer": {}, "texts": []}, ["pages: 3"]),
        ({"code": {"path": "p.py"}}, ["title: 2", "body: 1,900", "pages: 3", "old: 1"]),
    ],
    ids=["vocabularies", "one column tokenized", "all columns tokenized", "a preprocessing_fn"],
)
def test_line_breaks_are_noted_for_columns_that_no_tokenizer_reads(config, named):
    assert [note.partition(" values hold a line break")[0] for note in line_break_notes(SUMMARY, config)] == named
