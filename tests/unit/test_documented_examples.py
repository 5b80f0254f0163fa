"""Every command, YAML and Python example of the documentation parses against the code: options, keys and names exist."""

import ast
import inspect
import re
import shlex
import typing
from importlib.util import find_spec
from itertools import pairwise

import click
import pytest
import yaml
from pydantic import BaseModel

import switchyard
from switchyard.components.errors import UserError
from switchyard.pipelines.cli import main
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.pipeline import PipelineConfig
from tests.command import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
MINIMAL = {"name": "rides", "data": {"path": "rides.csv"}, "label": "big_tipper"}


def fences(language):
    """Yields (page, line, text) of every fence in a language; `` for those without one."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if found[1] == language:
                yield str(page.relative_to(REPOSITORY)), text[: found.start()].count("\n") + 2, found[2]


def spans():
    """Yields (page, text) of every code span outside of fences."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        yield from ((str(page.relative_to(REPOSITORY)), found.replace("\\|", "|")) for found in re.findall(r"`([^`\n]+)`", text))


def typed():
    """Yields (page, arguments) of every `switchyard` command that a fence shows, as a shell splits it."""
    for page, _, text in (fence for language in ("", "sh", "console") for fence in fences(language)):
        whole = re.sub(r"\\\n\s*", "", text)
        variables = {name: value.strip('"') for name, value in re.findall(r"^([A-Z]+)=(\S+|\".*\")$", whole, re.MULTILINE)}
        for line in whole.splitlines():
            said = re.sub(r"\s#\s.*", "", line.removeprefix("$ "))
            for name, value in variables.items():
                said = said.replace(f"${name}", value)
            for command in re.split(r"&&|;", said):
                if re.match(r"\s*(\.venv/bin/)?switchyard ", command):
                    yield page, tuple(word for word in shlex.split(command, comments=True)[1:] if word != "&")


TYPED = sorted(set(typed()))
SPANS = sorted({(page, text) for page, text in spans() if text.startswith("switchyard ")})
SETTINGS = sorted(
    {(page, value) for page, words in TYPED for option, value in pairwise(words) if option == "--set"}
    | {(page, found) for page, text in spans() for found in re.findall(r"--set ((?!KEY)[\w.]+=(?!\.\.\.)\S+)", text)}
)


def resolve(words):
    """Returns the click command that words lead to, its context, and the words that are left."""
    command, context = main, click.Context(main, info_name="switchyard")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        assert inner is not None, f"{context.command_path} has no command {words[0]!r}"
        command, context, words = inner, click.Context(inner, info_name=words[0], parent=context), words[1:]
    return command, context, words


@pytest.mark.parametrize(("page", "words"), TYPED, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_command_in_a_fence_parses(page, words):
    command, context, rest = resolve(list(words))
    assert not isinstance(command, click.Group) or rest, f"{page}: {context.command_path} needs a command"
    if {"--help", "-h", "--version"} & set(rest):
        return
    given = dict.fromkeys(["SWITCHYARD_KFP_HOST"], "http://127.0.0.1:8080")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        command.make_context(context.info_name, rest, parent=context.parent)


@pytest.mark.parametrize(("page", "text"), SPANS)
def test_a_command_in_the_text_has_the_options_that_it_names(page, text):
    if text == "switchyard exit code 3 in data_gate":
        return
    first, *others = (shlex.split(part) for part in text.split(" | "))
    group = first[1:-1]
    for words in [first[1:], *([*group, *other] for other in others)]:
        command, context, rest = resolve(words)
        if "..." not in rest:
            command.make_parser(context).parse_args([w for w in rest if w != "-"])


@pytest.mark.parametrize(("page", "setting"), SETTINGS)
def test_a_setting_on_the_command_line_is_valid(page, setting):
    key, _, value = setting.partition("=")
    load_config(None, document=MINIMAL, overrides=[setting if value else f"{key}=1"], base=REPOSITORY)


@pytest.mark.parametrize(
    ("page", "line", "text"), list(fences("yaml")), ids=lambda v: str(v) if not isinstance(v, str) else v[:30]
)
def test_yaml_is_a_config_or_a_section(page, line, text):
    document = yaml.safe_load(text)
    assert set(document) <= set(PipelineConfig.model_fields), f"{page}:{line}"
    load_config(None, document={**MINIMAL, **document}, base=REPOSITORY)


def test_an_unknown_key_in_a_yaml_example_would_be_found():
    with pytest.raises(UserError, match="unkown"):
        load_config(None, document={**MINIMAL, "unkown": 1}, base=REPOSITORY)


def known(section, keys):
    """Returns whether keys lead from a section to a field; below a mapping or a list any name does."""
    if not keys:
        return True
    fields = {field.alias or name: field for name, field in section.model_fields.items()}
    if keys[0] not in fields:
        return False
    return below(fields[keys[0]].annotation, keys[1:])


def below(annotation, keys):
    if not keys:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return known(annotation, keys)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return below(arguments[1], keys[1:]) or (len(keys) == 1)
    return any(below(argument, keys) for argument in arguments)


SECTIONS = [name for name, field in PipelineConfig.model_fields.items() if not known(PipelineConfig, [name, "no_such_key"])]
KEYS = sorted(
    {
        (page, found[0])
        for page, text in spans()
        if (found := re.match(rf"(?:{'|'.join(SECTIONS)})(?:\.(?!\w+\()[a-zA-Z_*][\w*]*)+(?=$|[:=\s])", text))
        and not re.search(r"\.(csv|py|md|parquet|proto|pbtxt|json)$", text.split(" ")[0].split("=")[0])
    }
)


@pytest.mark.parametrize(("page", "key"), KEYS)
def test_a_config_key_that_a_page_names_exists(page, key):
    assert known(PipelineConfig, key.removesuffix(".*").split(".")), key


@pytest.mark.parametrize(
    ("page", "line", "text"), list(fences("python")), ids=lambda v: str(v) if not isinstance(v, str) else v[:30]
)
def test_python_compiles_and_calls_the_existing_api(page, line, text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert [m for m in modules if find_spec(m.split(".")[0]) is None] == [], f"{page}:{line}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in switchyard.__all__:
            taken = inspect.signature(getattr(switchyard, node.func.id)).parameters
            assert {k.arg for k in node.keywords} <= set(taken), f"{page}:{line}: {node.func.id}"


def test_the_examples_are_found():
    assert len(TYPED) >= 30
    assert len(SPANS) >= 20
    assert len(SETTINGS) >= 8
    assert len(KEYS) >= 60
    assert len(list(fences("yaml"))) >= 5
    assert len(list(fences("python"))) >= 4
