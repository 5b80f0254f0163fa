"""The reference in docs/reference is what the code generates, and it is complete."""

import runpy

import click
import pytest

import switchyard
from switchyard.components.config import Section
from switchyard.pipelines.cli import main
from tests.command import REPOSITORY

make_reference = runpy.run_path(str(REPOSITORY / "docs" / "make_reference.py"))


@pytest.fixture(scope="module")
def generated():
    return make_reference["pages"]()


@pytest.mark.parametrize("page", ["configuration.md", "commands.md", "api.md"])
def test_a_committed_page_is_what_the_code_generates(generated, page):
    assert (REPOSITORY / "docs" / "reference" / page).read_text() == generated[page], f"{page} is stale: make reference"


def test_a_key_has_its_type_bounds_default_and_description(generated):
    assert "| `max_bad_rows` | whole number ≥ 0 | `0` | Ragged, undecodable or unlabelled rows" in generated["configuration.md"]
    assert "| `confidence` | number ≥ 0.5 and < 1 or `null` | `0.95` | " in generated["configuration.md"]
    assert "| `schema` | text or `null` | `null` | Reviewed `schema.pbtxt`" in generated["configuration.md"]


def test_a_key_without_a_description_is_refused():
    class Undescribed(Section):
        """A section.

        Attributes:
            known: a key.
        """

        known: int = 0
        unknown: int = 0

    with pytest.raises(LookupError, match=r"Undescribed\.unknown: no description"):
        list(make_reference["_sections"](Undescribed, "", {}))


def test_every_command_has_a_heading(generated):
    def paths(command, path):
        if not isinstance(command, click.Group):
            return [path]
        context = click.Context(command)
        return [p for name in command.list_commands(context) for p in paths(command.get_command(context, name), f"{path} {name}")]

    assert [path for path in paths(main, "switchyard") if f"## `{path}`\n" not in generated["commands.md"]] == []


def test_every_public_name_has_a_heading(generated):
    assert [name for name in switchyard.__all__ if f"## `{name}`\n" not in generated["api.md"]] == []
