"""Writes a new project: the commented YAML, the code of its template and, without data, invented ones."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from switchyard.components.errors import ArgumentError, UserError
from switchyard.components.ingest.sources import is_local
from switchyard.components.text.visible import in_a_line, in_line
from switchyard.pipelines.api.class_folders import TEXT_PARAMETERS
from switchyard.pipelines.api.output_path import check_output
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.preflight import check_inputs
from switchyard.pipelines.project import IMAGE, PIPELINE, TABULAR, TEXT
from switchyard.pipelines.project.look import Look, look
from switchyard.pipelines.project.samples import FILES, LABELS, write_sample

# Column where the comments begin, and the longest name in one.
_COMMENTS, _LONGEST_NAME = 44, 60
_MOST_COLUMNS = 100
_CODE = ("keras_model.py", "torch_model.py", "test_project.py")
_OF_TEMPLATE = {TABULAR: _CODE, TEXT: ("tokenizer.py", *_CODE), IMAGE: _CODE}
_PARAMETERS: dict[str, dict[str, Any]] = {
    TABULAR: {"hidden": [64, 32], "dropout": 0.1},
    TEXT: TEXT_PARAMETERS,
    IMAGE: {"filters": 16, "hidden": 64, "dropout": 0.25},
}
_METRICS = {"binary": "auc: {lower_bound: 0.8}", "multiclass": "accuracy: {lower_bound: 0.8}"}
_REMARKS = {
    "image": "height and width that pictures are resized to",
    "sequence": "length that lists are padded or cut to",
    "text": "every value is a text, also 01 and None",
}
_GITIGNORE = "# What a run writes: its cache, records, models and logs.\n.switchyard/\n*.kfp.yaml\n__pycache__/\n.pytest_cache/\n"


@dataclass(frozen=True)
class Project:
    """A written project: its folder, its files in the order of writing, and what the data showed."""

    folder: Path
    files: list[str]
    found: Look


def write_project(
    data: Sequence[str],
    label: str | None = None,
    template: str | None = None,
    overrides: Sequence[str] = (),
    *,
    folder: Path,
    tell: Callable[[str], None],
) -> Project:
    """Writes a project that runs as it stands; nothing stays of one that would not.

    Args:
        data: see `look`; without any, invented data of the template are written, too.
        label: the column to predict; None for one with an obvious name.
        template: `tabular`, `text` or `image`; None for the one that fits the data, or `tabular`.
        overrides: texts `KEY=VALUE` with keys of `data`.
        folder: folder to write to, which is created.
        tell: receives what was read from a folder of pictures or texts, and what an existing `.gitignore` lacks.

    Raises:
        UserError: a file exists, the data cannot be read, no label is obvious, or the template does not fit.
    """
    check_output(folder, is_folder=True)
    if not data and (label or overrides):
        raise ArgumentError("label" if label else "overrides", "describes DATA, and none is given; give them, or leave it out")
    with _written_or_removed(folder) as new:
        sample = None if data else new(FILES[template or TABULAR])
        _check_free(folder, [PIPELINE, *_OF_TEMPLATE[template or TABULAR]])
        if sample:
            write_sample(template or TABULAR, sample)
            data, label = [str(sample)], LABELS[template or TABULAR]
        found = look(data, label, template, overrides, place=lambda name: new(f"{name}.parquet"), tell=tell)
        if sample:
            found = replace(found, label_by="of the invented rows", template_by="by --template" if template else "the default")
        new(PIPELINE).write_text(_yaml(found, folder), "utf-8")
        for name in _OF_TEMPLATE[found.template]:
            new(name).write_text((Path(__file__).parent / "templates" / found.template / name).read_text("utf-8"), "utf-8")
        ignored = folder / ".gitignore"
        if not ignored.is_file():
            new(ignored.name).write_text(_GITIGNORE, "utf-8")
        elif missing := _missing(ignored.read_text("utf-8", errors="replace")):
            tell(f"{ignored}: exists and is kept; add the lines for what a run writes: {in_a_line(missing)}")
        with tempfile.TemporaryDirectory(prefix="switchyard-init-") as store:
            check_inputs(load_config(folder / PIPELINE), Path(store))
        return Project(folder, [path.name for path in new.files], found)


class _New:
    """Returns paths of new files in a folder, which must not exist, and remembers them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[Path] = []

    def __call__(self, name: str) -> Path:
        _check_free(self._folder, [name])
        self._folder.mkdir(parents=True, exist_ok=True)
        self.files.append(self._folder / name)
        return self.files[-1]


@contextmanager
def _written_or_removed(folder: Path) -> Iterator[_New]:
    """Removes what was written, and the folder if it was created, after an error."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    new = _New(folder)
    try:
        yield new
    except BaseException:
        for file in new.files:
            file.unlink(missing_ok=True)
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise


def _check_free(folder: Path, names: Sequence[str]) -> None:
    if taken := [name for name in names if os.path.lexists(folder / name)]:
        raise UserError(
            f"{folder}: {in_a_line(taken)} would be overwritten; give a new folder by --output, or move "
            f"{'it' if len(taken) == 1 else 'them'} away"
        )


def _missing(ignored: str) -> list[str]:
    """Returns the patterns that a `.gitignore` lacks."""
    return [line for line in _GITIGNORE.splitlines()[1:] if line not in map(str.strip, ignored.splitlines())]


def _yaml(found: Look, folder: Path) -> str:
    """Returns the text of the pipeline's YAML."""
    paths = [_relative(path, folder) for path in found.paths]
    environment = Environment(
        loader=PackageLoader("switchyard.pipelines.project", "templates"),
        autoescape=False,  # noqa: S701 (YAML, whose values are quoted by the filter `value`)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(value=_value, note=_noted, inline=_shortened)
    return environment.get_template(f"{PIPELINE}.j2").render(
        look=found,
        path=paths[0] if len(paths) == 1 else paths,
        source=in_a_line(paths[:3]) + ", ..." * (len(paths) > 3),
        columns=list(found.columns.items()),
        most_columns=_MOST_COLUMNS,
        parameters=_PARAMETERS[found.template],
        remarks=_REMARKS,
        metric=_METRICS.get(found.task, "loss: {upper_bound: 1.0}"),
        slice=_slice(found),
    )


def _relative(path: str, folder: Path) -> str:
    """Returns a path from the folder of the YAML, an absolute path or a URI as it is."""
    is_inside = os.path.realpath(path).startswith(f"{os.path.realpath(folder)}/")
    if not is_local(path) or (Path(path).is_absolute() and not is_inside):
        return path
    place, name = os.path.split(os.path.abspath(path))
    return os.path.relpath(os.path.join(os.path.realpath(place), name), os.path.realpath(folder))


def _slice(found: Look) -> str:
    """Returns a column to slice by, for an example; empty without one."""
    columns = {name: kind for name, kind in found.columns.items() if name not in (*found.texts, *found.ids)}
    words = [name for name, kind in columns.items() if kind.startswith(("text", "boolean"))]
    return (words or [name for name, kind in columns.items() if not kind.startswith(("image", "lists"))] or [""])[0]


def _value(value: Any) -> str:
    """Returns a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False)
    text = text.removesuffix("...\n").strip()
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text


def _noted(line: str, comment: str) -> str:
    """Returns a line with a comment behind it."""
    return f"{line.ljust(_COMMENTS - 2)}  # {in_line(comment)}" if comment else line


def _shortened(text: str) -> str:
    text = in_line(text)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
