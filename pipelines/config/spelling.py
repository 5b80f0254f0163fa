"""Resolves plain YAML scalars by type: texts where the config expects texts, else YAML 1.1's value.

YAML 1.1 reads `no` as false, `012` as 10, `12:30` as 750 and `null` as nothing: correct for a switch or a number, wrong for a
column, a class or a missing value. Only the scalar's key decides which one is meant.
"""

from __future__ import annotations

import re
import types
import typing
from dataclasses import dataclass
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from switchyard.components.errors import UserError

# Numbers that YAML 1.1 reads in another base than ten.
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?)")
_CERTAIN_BOOLEANS = ("true", "false")


@dataclass(frozen=True)
class Spelled:
    """A scalar that YAML does not read as text: its value and its spelling."""

    value: bool | int | float | None
    text: str


def resolve(value: Any, annotation: Any, key: str = "") -> Any:
    """Returns a value of `read_yaml` with each `Spelled` resolved by the config's type at its place.

    Args:
        value: mappings, lists, texts and `Spelled`.
        annotation: type annotation of the field; `Any` for a free value.
        key: path of the value, for errors.

    Raises:
        UserError: a free value is ambiguous, or a number is written in another base than ten.
    """
    if isinstance(value, Spelled):
        return _scalar(value, annotation, key)
    if isinstance(value, dict):
        return {k: resolve(v, _annotation_under(annotation, k), f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        inner = _argument(annotation, (tuple, list), 0)
        return [resolve(v, inner, key) for v in value]
    return value


def _scalar(given: Spelled, annotation: Any, key: str) -> Any:
    kinds = _kinds(annotation)
    takes_text, is_free = str in kinds, Any in kinds
    if given.value is None:
        return given.text if given.text and takes_text and not kinds & {type(None), Any} else None
    if isinstance(given.value, bool):
        if (is_free or {bool, str} <= kinds) and given.text.lower() not in _CERTAIN_BOOLEANS:
            raise UserError(
                f"{key}: {given.text} can be a text or a boolean, and YAML reads {str(given.value).lower()}; "
                f"write '{given.text}' in quotes for the text, or {str(given.value).lower()}."
            )
        return given.text if takes_text and bool not in kinds else given.value
    if takes_text and not kinds & {int, float, Any}:
        return given.text
    if _OTHER_BASE.fullmatch(given.text):
        raise UserError(
            f"{key}: YAML reads {given.text} in another base than ten, as {given.value}; write the number in base ten, "
            f"or '{given.text}' in quotes for the text."
        )
    return given.value


def _annotation_under(annotation: Any, key: str) -> Any:
    for branch in branches(annotation):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            for name, field in branch.model_fields.items():
                if key in (name, *_aliases(field)):
                    return field.annotation
    # Unknown keys are refused later.
    return _argument(annotation, (dict,), 1)


def _aliases(field: FieldInfo) -> list[Any]:
    given = field.validation_alias
    return [field.alias, *(given.choices if isinstance(given, AliasChoices) else [given])]


def _argument(annotation: Any, origins: tuple[type, ...], place: int) -> Any:
    """Returns the type inside a container, or `Any` if the field has none of these containers."""
    for branch in branches(annotation):
        if typing.get_origin(branch) in origins:
            return typing.get_args(branch)[place]
    return Any


def _kinds(annotation: Any) -> set[Any]:
    """Returns the plain types that a field accepts; includes `Any` if it has a short form of its own."""
    kinds: set[Any] = set()
    for branch in branches(annotation):
        if typing.get_origin(branch) is typing.Literal:
            kinds |= {type(choice) for choice in typing.get_args(branch)}
        elif typing.get_origin(branch) is tuple:
            # A single text is accepted as a list of one.
            kinds |= _kinds(typing.get_args(branch)[0]) & {str}
        elif branch in (str, bool, int, float, type(None)):
            kinds.add(branch)
        elif not (typing.get_origin(branch) or (isinstance(branch, type) and issubclass(branch, BaseModel))):
            kinds.add(Any)
    return kinds or {Any}


def branches(annotation: Any) -> list[Any]:
    """Returns the alternatives of a type annotation: the members of a union, without `Annotated`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return branches(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [b for a in typing.get_args(annotation) for b in branches(a)]
    return [annotation]
