"""SECURITY.md says which test shows what: they are there, and so is what it links to."""

import re

import pytest

from tests.command import REPOSITORY

TEXT = (REPOSITORY / "SECURITY.md").read_text()


@pytest.mark.core
def test_every_file_that_the_table_names_exists():
    named = set(re.findall(r"`((?:tests|infra)/[\w./]+)`", TEXT)) | set(re.findall(r"\]\(([\w./]+)\)", TEXT))

    assert len(named) > 15
    assert [name for name in sorted(named) if not (REPOSITORY / name).is_file()] == []


@pytest.mark.core
def test_every_item_has_a_test():
    items = re.split(r"^\d+\. ", TEXT.partition("## What is promised")[2], flags=re.MULTILINE)[1:]

    assert len(items) == 12
    assert all("`tests/security/test_" in item for item in items)


@pytest.mark.core
def test_every_file_of_attacks_has_a_row_in_the_table_and_every_row_its_files():
    named = set(re.findall(r"`(test_\w+\.py)`", (REPOSITORY / "tests/security/README.md").read_text()))

    assert named == {file.name for file in (REPOSITORY / "tests/security").glob("test_*.py")}
