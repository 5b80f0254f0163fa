"""Finds the data files that the user's code opens: files named by literals in the code and those of the config's `files`."""

from __future__ import annotations

import ast
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from switchyard.components.errors import CHECK_PATH, UserError
from switchyard.components.text.escaping import pattern_of

_LARGEST_NAMED = 256 << 20
_LONGEST_NAME = 1024


def named_files(file: Path, tree: ast.Module, root: Path, key: str) -> set[Path]:
    """Returns the existing files that a Python file names by literals, relative to its folder or to `root`.

    Args:
        file: the Python file.
        tree: its syntax tree.
        root: folder whose files are copied with the code.
        key: config key for the error.

    Raises:
        UserError: a file is outside of `root`, or too large to be copied unless it is listed in `files`.
    """
    found = set()
    for name in _names(tree):
        for base in dict.fromkeys((file.parent, root)):
            candidate = Path(os.path.normpath(base / name))
            if not _is_file(candidate) or candidate.suffix == ".py":
                continue
            if not candidate.is_relative_to(root):
                raise UserError(
                    f"{key}: {file.name} names {name!r}, which is outside {root} and is not copied with the code; move it "
                    "beside the code, or give its absolute path."
                )
            if candidate.stat().st_size > _LARGEST_NAMED:
                raise UserError(
                    f"{key}: {file.name} names {name!r}, {candidate.stat().st_size >> 20} MiB; a file larger than "
                    f"{_LARGEST_NAMED >> 20} MiB is copied with the code only if it is listed: files: [{name}]."
                )
            found.add(candidate)
            break
    return found


def listed_files(patterns: Sequence[str]) -> list[Path]:
    """Returns the files of the config's `files`: paths, folders (recursively) and globs.

    Raises:
        UserError: an entry matches no file.
    """
    found: list[Path] = []
    for pattern in patterns:
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern_of(pattern), recursive=True))
        files = [f for match in matches for f in _files_of(Path(match))]
        if not files:
            raise UserError(f"files: no file at {pattern}. {CHECK_PATH}")
        # Normalized, so that a path with `..` does not seem to be inside a folder that it leaves.
        found += [Path(os.path.normpath(f)) for f in files]
    return list(dict.fromkeys(found))


def _files_of(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(f for f in place.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return [place]


def _is_file(candidate: Path) -> bool:
    try:
        return candidate.is_file()
    except (OSError, ValueError):  # the text is no valid path
        return False


def _names(tree: ast.Module) -> Iterator[str]:
    """Yields texts that may be relative paths: literals, and literals joined by `/` or as arguments of a call."""
    # Expression statements such as docstrings are skipped.
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        parts: list[str] = []
        if isinstance(node, ast.Constant) and id(node) not in alone:
            parts = _literals([node])
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            chain: list[ast.expr] = []
            left: ast.expr = node
            while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div):
                chain.insert(0, left.right)
                left = left.left
            parts = _literals(chain)
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            parts = _literals(node.args)
        name = "/".join(parts)
        if name and len(name) < _LONGEST_NAME and "\0" not in name and not Path(name).is_absolute():
            yield name


def _literals(nodes: Sequence[ast.expr]) -> list[str]:
    """Returns the string literals at the end of a chain of parts."""
    parts: list[str] = []
    for node in reversed(nodes):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            break
        parts.insert(0, node.value)
    return parts
