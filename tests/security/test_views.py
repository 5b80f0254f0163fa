"""KFP's pages render Markdown and the HTML in it: what comes from data means itself there."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tensorflow_metadata.proto.v0 import anomalies_pb2

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.findings import Finding, Verdict
from switchyard.components.evaluation.results import CANDIDATE, Evaluation, ModelResult
from switchyard.components.registration.descriptions import model_card, run_description
from switchyard.components.text.markdown import plain
from switchyard.pipelines.runners.kubeflow.task.views import write_views

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![](http://evil.example/beacon)",
    "[click](javascript:alert(1))",
    "a | b | c",
    "a\n\n# heading\n\n* item",
    "a\r\n| x | y |",
    "`code` **bold** __bold__ ~~gone~~ $x$",
    "<http://evil.example>",
    "&lt;script&gt; &#60;b&#62;",
    "\\<b>\\",
    "</td></table><iframe src=x>",
    "1. one",
    "- one",
    "\u2028<b>\u202e\x00\x1b[31m",
    "{{ x }} ${x} %s",
    "😀 ü 漢字",
]
TAGS = {"table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li", "strong"}


class Page(HTMLParser):
    """What a browser makes of a page: its tags, and the text of its cells and items."""

    def __init__(self, markdown):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag in {"td", "li", "p"}:
            self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data


def readable(text):
    """As a person sees it: in one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@pytest.mark.core
@given(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=80), st.text("<>&|\\`*_[]()!#-+.:/@~ \n1a", max_size=80)))
def test_any_text_is_shown_literally(text):
    page = Page(f"| head |\n| --- |\n| x{plain(text)}x |\n")

    assert page.tags <= TAGS
    assert readable(page.texts[0]) == f"x{readable(text)}x"


@pytest.mark.core
def test_no_text_becomes_a_link():
    found = plain("see https://evil.example or www.evil.example or me@evil.example")

    assert not re.search(r"[a-z]://|www\.|[a-z]@[a-z]", found)


@pytest.mark.core
def test_a_text_without_markup_has_no_backslash_which_mlflow_would_show():
    text = "b is champion: 95 % interval, 'a/b' at 12:30:45; $5? ^"
    assert plain(text) == text
    assert plain("a :smile: b") == "a \\:smile: b"


@pytest.mark.core
def test_a_long_text_is_truncated():
    assert plain("x" * 10_000) == "x" * 1000 + "…"


@pytest.mark.core
@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_of_anomalies_escapes_texts(text, tmp_path):
    found = anomalies_pb2.Anomalies()
    found.anomaly_info[text].short_description = text
    found.anomaly_info[text].description = text
    (tmp_path / "Split-train").mkdir()
    (tmp_path / "Split-train" / "SchemaDiff.pb").write_bytes(found.SerializeToString())

    page = view(tmp_path, "ExampleAnomalies")

    assert page.tags <= TAGS
    assert [readable(t) for t in page.texts] == ["train", *[readable(text)] * 3]


@pytest.mark.core
@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_of_the_data_gate_escapes_texts(text, tmp_path):
    finding = Finding("schema", text, text, text, text, text)
    Verdict([finding]).save(str(tmp_path))

    page = view(tmp_path, "DataVerdict")

    assert page.tags <= TAGS
    assert [readable(t) for t in page.texts] == ["stopped", f"fail: {readable(finding.sentence())}"]


def view(folder, kind):
    target = folder / "view"
    write_views("it", kind, str(folder), {"it_markdown": SimpleNamespace(path=str(target))})
    return Page(target.read_text())


@pytest.mark.core
@pytest.mark.parametrize("name", HOSTILE)
def test_a_class_in_the_description_of_a_registered_version_is_read_as_it_is(name):
    """MLflow renders descriptions as Markdown too."""
    slices = {f"{name}=1": {"auc": 0.5, "example_count": 3.0}}
    model = ModelResult("a", CANDIDATE, "a", "", None, {"auc": 0.9}, {}, slices, {})
    found = Evaluation("binary", "auc", "test", 10, "a", {"a": model}, [], {}, None, 0, name, None, [name], name, name)
    summary = DatasetSummary("f" * 64, [name], {name: "string"}, {}, {"train": 3}, 0, [], [], name, "binary", [name, "b"], {})

    card = Page(model_card(model, found, summary, name, "d"))
    run = Page(run_description(name, "m", found, summary, ("1", "r")))

    assert card.tags <= TAGS | {"h3", "code"}
    assert run.tags <= TAGS | {"a", "code"}
    assert readable(f"{name}=1") in [readable(text) for text in card.texts]
