"""Checks the weights of a model folder by the headers of its safetensors files, which hold names and shapes; loads no weight."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Tables of tokens, of which each model has one: (tokens, width).
_TOKENS = re.compile(r"(?:^|\.)(?:word_embeddings|embed_tokens|wte|tok_embeddings|token_embedding)\.weight$")
# Keys of models whose tokens have another width than their layers.
_OTHER_WIDTHS = ("embedding_size", "embed_proj_dim")
# Layers with weights of their own, by their number.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

Shapes = dict[str, tuple[int, ...]]


def shapes_of(file: Path) -> Shapes:
    """Returns the shape of each weight of a file.

    Raises:
        ValueError: the file is truncated, longer than its header says, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file.name} is truncated or damaged: {error}"[:300]) from error


def fault(files: Sequence[Path], places: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Returns why weights cannot be those of a model; empty if nothing is wrong with their names and shapes.

    Args:
        files: the safetensors files.
        places: weight -> name of its file, of an index; empty without one.
        config: the content of `config.json`.
    """
    found: Shapes = {}
    for file in files:
        try:
            shapes = shapes_of(file)
        except ValueError as error:
            return str(error)
        if lost := [name for name, place in places.items() if place == file.name and name not in shapes]:
            return f"{file.name} lacks {len(lost)} weights that the index says are in it, such as {lost[0]}"
        found |= shapes
    if not found:
        return "the safetensors files hold no weight"
    return _of_tokens(found, config) or _of_layers(found, config)


def _of_tokens(shapes: Shapes, config: Mapping[str, Any]) -> str:
    projected = any(key.endswith(_OTHER_WIDTHS) and config[key] for key in config)
    expected = (config.get("vocab_size"), None if projected else config.get("hidden_size"))
    for name, shape in shapes.items():
        if not _TOKENS.search(name) or len(shape) != len(expected):
            continue
        for size, wanted, what in zip(shape, expected, ("vocab_size", "hidden_size"), strict=True):
            if isinstance(wanted, int) and size != wanted:
                return f"{name} has the shape {shape}, and config.json a {what} of {wanted}"
    return ""


def _of_layers(shapes: Shapes, config: Mapping[str, Any]) -> str:
    numbers = {int(match[1]) for name in shapes if (match := _LAYER.search(name))}
    wanted = next((config[key] for key in _LAYERS if isinstance(config.get(key), int)), None)
    if not numbers:  # layers that share their weights, or have other names
        return ""
    lost = sorted(set(range(max(wanted or 0, max(numbers) + 1))) - numbers)
    return f"the weights lack layer {lost[0]} of {max(wanted or 0, max(numbers) + 1)}" if lost else ""
