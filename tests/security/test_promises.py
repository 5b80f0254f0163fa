"""SECURITY.md says which test shows what: they are there, and so is what it links to."""

import re

import pytest

from tests.command import REPOSITORY

TEXT = (REPOSITORY / "SECURITY.md").read_text()


@pytest.mark.core
def test_every_file_that_it_names_is_there():
    named = set(re.findall(r"`((?:tests|infra)/[\w./]+)`", TEXT)) | set(re.findall(r"\]\(([\w./]+)\)", TEXT))

    assert len(named) > 15
    assert [name for name in sorted(named) if not (REPOSITORY / name).is_file()] == []


@pytest.mark.core
def test_every_item_has_a_test():
    items = re.split(r"^\d+\. ", TEXT.partition("## What is promised")[2], flags=re.MULTILINE)[1:]

    assert len(items) == 12
    assert all("`tests/security/test_" in item for item in items)
