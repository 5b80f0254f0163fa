"""Validates a journal's records: files on disk may be damaged or come with a workspace from an untrusted source."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from switchyard.components.errors import UserError
from switchyard.components.tracking.journal_files import located

_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def _inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError("leads out of the run's artifacts")
    return name


_Place = Annotated[str, AfterValidator(_inside)]
_Name = Annotated[str, Field(min_length=1), AfterValidator(_inside)]
_Path = Annotated[str, Field(min_length=1)]


class _Texts(TypedDict):
    op: Literal["params", "tags"]
    values: dict[str, str]


class _Metrics(TypedDict):
    op: Literal["metrics"]
    values: dict[str, float]
    step: _Int64
    time: _Int64


class _File(TypedDict):
    op: Literal["file"]
    path: _Path
    folder: _Place


class _FileAs(TypedDict):
    op: Literal["file_as"]
    path: _Path
    name: _Name


class _Text(TypedDict):
    op: Literal["text"]
    content: str
    name: _Name


class _Table(TypedDict):
    op: Literal["table"]
    columns: dict[str, list[Any]]
    name: _Name


class _Dataset(TypedDict):
    op: Literal["dataset"]
    name: str
    digest: str
    source: str
    profile: str
    schema: NotRequired[str]
    context: NotRequired[str]


class _End(TypedDict):
    op: Literal["end"]
    status: Literal["FINISHED", "FAILED", "KILLED"]
    time: _Int64


class _Model(TypedDict):
    name: str
    bundle: _Path
    signature: NotRequired[str]


class _Register(TypedDict):
    op: Literal["register"]
    model: _Model


class _New(TypedDict):
    name: str
    tags: dict[str, str]
    started: _Int64


class _Header(TypedDict):
    uri: _Path
    experiment: str
    artifacts: str
    runs: dict[str, str]
    new: dict[str, _New]


_Operation = Annotated[
    _Texts | _Metrics | _File | _FileAs | _Text | _Table | _Dataset | _End | _Register, Field(discriminator="op")
]
_adapter = functools.cache(TypeAdapter)


def read_operation(line: str, folder: Path) -> dict[str, Any]:
    """Returns a validated operation of the journal in `folder`, with absolute paths.

    Raises:
        UserError: the record is damaged, or names a file outside of the workspace.
    """
    operation = located(_read(line, _Operation, "the record"), folder)
    path = operation["model"]["bundle"] if operation["op"] == "register" else operation.get("path")
    if path is not None and os.path.exists(path):
        place, journal = Path(path).resolve(), folder.resolve()
        # The layout is <workspace>/tracking/<journal>. A workspace from elsewhere must not upload other files of the user.
        if not place.is_relative_to(journal.parents[1]) or journal.is_relative_to(place):
            raise UserError(f"{path} lies outside the workspace and is not sent")
    return operation


def read_header(text: str) -> dict[str, Any]:
    """Returns the validated content of a journal's `pipeline.json`.

    Raises:
        UserError: the file is damaged.
    """
    return _read(text, _Header, "pipeline.json")


def _read(text: str, wanted: Any, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # rejects lone surrogates
        _adapter(wanted).validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{what} is damaged: {f'{place}: ' if place else ''}{first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is damaged: {str(error)[:200]}") from None
    return dict(found)
