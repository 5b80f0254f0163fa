"""Converts pydantic's errors to messages: the key, the value received, the values allowed, the closest valid key."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from switchyard.components.errors import did_you_mean
from switchyard.components.text.redaction import mask
from switchyard.components.training.huggingface import FORMS, FRAMEWORKS, MODEL
from switchyard.pipelines.config.spelling import branches

_SHOWN = 20  # problems of a config
_KEY, _MESSAGE = 100, 1000  # characters


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Returns one line per problem, several of them under a heading."""
    count = error.error_count()
    lines = list(dict.fromkeys(_line(problem, model) for problem in error.errors(include_url=False)[:_SHOWN]))
    if count > _SHOWN:
        return f"{count} problems, the first of them:\n" + "\n".join(f"  - {line}" for line in lines)
    return lines[0] if len(lines) == 1 else f"{len(lines)} problems:\n" + "\n".join(f"  - {line}" for line in lines)


def _line(problem: Any, model: type[BaseModel]) -> str:
    loc = [_cut(str(p)) for p in problem["loc"]]
    kind = problem["type"]
    section, inner, names = _section(model, loc)
    key = ".".join(names) or "the file"
    if kind == "extra_forbidden":
        allowed = _keys(section)
        return f"{key}: unknown key.{did_you_mean(names[-1], allowed)} Allowed here: {', '.join(allowed)}."
    if kind == "missing":
        return f"{key}: is missing and has no default. Add it."
    message = _cut(problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be"), _MESSAGE)
    message = message.replace("a valid tuple", "a list")
    if kind == "value_error" and inner:
        # Message of a section's own check: it starts with the key inside the section if a single key is at fault.
        own = message.split()[0].rstrip(":").split(".")[0] in _keys(inner)
        return f"{'.'.join([*names, ''])}{message}" if own and " exclude each other" not in message else f"{key}: {message}"
    hint = ""
    if kind == "literal_error":
        choices = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        hint = did_you_mean(_cut(str(problem["input"])), choices)
    return f"{key}: {message}, received {_short(problem['input'])}.{hint}"


def _cut(text: str, most: int = _KEY) -> str:
    """Returns a text truncated for display."""
    return text if len(text) <= most else f"{text[:most]}..."


def _short(value: Any) -> str:
    text = mask(repr(value))  # mask before truncation: a part of a secret is not recognized
    return f"{text if len(text) < 80 else text[:77] + '...'} ({type(value).__name__})"


def _section(model: type[BaseModel], loc: list[str]) -> tuple[type[BaseModel], type[BaseModel] | None, list[str]]:
    """Walks `loc` through the models.

    Returns:
        The section that holds the last key, the section that the last key itself is (if it is one), and the path
        without pydantic's union markers.
    """
    section, names, current = model, [], typing.cast(Any, model)
    for part in loc:
        if part in FORMS:  # which form of a value was taken
            current = _form(current, part)
            continue
        found = _models(current)
        if not found:
            # Inside a dict or list, or pydantic's name of a union's branch.
            named = part.isidentifier() and not part.startswith(("function", "literal")) and _is_key(current, part)
            if part.isdigit() or named:
                names.append(part)
                current = _value_type(current)
            continue
        section = found[0]
        names.append(part)
        field = next((f for n, f in section.model_fields.items() if part in (n, f.alias)), None)
        current = field.annotation if field else None
    return section, next(iter(_models(current)), None), names


def _form(annotation: Any, name: str) -> Any:
    """Returns the form of a value, see `components.training.huggingface`, among the alternatives of a type annotation."""
    kinds = {MODEL: _models(annotation), FRAMEWORKS: [b for b in branches(annotation) if typing.get_origin(b) is dict]}
    return next(iter(kinds.get(name, [])), str)


def _is_key(annotation: Any, part: str) -> bool:
    return any(typing.get_origin(a) in (dict, tuple) for a in branches(annotation)) and part not in ("float", "str", "tuple")


def _value_type(annotation: Any) -> Any:
    for branch in branches(annotation):
        if typing.get_origin(branch) in (dict, tuple):
            return typing.get_args(branch)[-1 if typing.get_origin(branch) is dict else 0]
    return None


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [b for b in branches(annotation) if isinstance(b, type) and issubclass(b, BaseModel)]


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]
