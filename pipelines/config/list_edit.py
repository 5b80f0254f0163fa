"""Changes a list of texts in a YAML file and keeps the rest of it, comments included."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from switchyard.components.errors import UserError


def edit_list(path: Path, key: str, entries: Mapping[str, str], identity: Callable[[str], str]) -> None:
    """Sets entries of a list under a top-level key: those with the same identity are replaced, the others appended.

    Args:
        path: the YAML file.
        key: the key, which is added if it is missing.
        entries: identity -> new entry.
        identity: returns the identity of an entry that the file has.

    Raises:
        UserError: the file is written in a way that is not changed here; the message has the line to write.
    """
    path = path.resolve()  # a link stays one
    with path.open(encoding="utf-8", newline="") as file:  # line ends stay as they are
        text = file.read()
    before = (yaml.safe_load(text) or {}).get(key) or []
    old = [before] if isinstance(before, str) else list(before)
    new = [entries.get(identity(entry), entry) for entry in old]
    new += [entry for name, entry in entries.items() if name not in set(map(identity, old))]
    changed = _changed(text, key, old, new)
    if changed is None or _loaded(changed) != {**yaml.safe_load(text), key: new}:
        raise UserError(f"{path}: cannot be changed without changing more than {key}; write there {key}: {_flow(new)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(changed.encode())
    temporary.chmod(path.stat().st_mode & 0o7777)
    os.replace(temporary, path)


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:  # such as text behind the end of a document
        return None


def _flow(entries: list[str]) -> str:
    return f"[{', '.join(entries)}]"


def _changed(text: str, key: str, old: list[str], new: list[str]) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    node = next((value for name, value in root.value if name.value == key), None)
    line = "\r\n" if "\r\n" in text else "\n"
    if node is None:
        return f"{text}{'' if text.endswith(line) else line}{key}: {_flow(new)}{line}"
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        start, end = node.start_mark.index, node.end_mark.index
        return f"{text[:start]}{'' if end > start else ' '}{_flow(new)}{text[end:]}"
    # From the end, so that the marks before stay valid.
    at, between = node.value[-1].end_mark.index, ", "
    if not node.flow_style:
        between = f"{line}{' ' * node.start_mark.column}- "
        # Behind the comment of the last entry.
        at = end if (end := text.find(line, at)) >= 0 else len(text)
    text = text[:at] + "".join(between + entry for entry in new[len(old) :]) + text[at:]
    for item, before, after in reversed(list(zip(node.value, old, new[: len(old)], strict=True))):
        if before != after:
            text = text[: item.start_mark.index] + after + text[item.end_mark.index :]
    return text
