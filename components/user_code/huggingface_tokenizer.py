"""The tokenizer of a Hugging Face model folder. A copy of this file is in every snapshot and bundle, beside `tokenizer.json`.

It needs the library `tokenizers` alone, neither Transformers nor PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.components.errors import UserError

_HERE = Path(__file__).parent


def build_tokenizer(spec: Any) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Returns texts, or pairs of texts -> `input_ids`, `attention_mask` and, for models that have types, `token_type_ids`.

    Each is int64 (B, max_length).

    Raises:
        UserError: the texts are neither one column nor a pair, or are no texts.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(f"tokenizer: {error}; install the extra: pip install 'switchyard[huggingface]'") from error
    settings = json.loads((_HERE / "settings.json").read_text(encoding="utf-8"))
    columns = _columns(spec, settings["columns"])
    tokenizer = Tokenizer.from_file(str(_HERE / "tokenizer.json"))
    length, pad, vocabulary = settings["max_length"], settings["pad_token"], tokenizer.get_vocab()
    if pad not in vocabulary:
        raise UserError(f"tokenizer: tokenizer.json has no token {pad[:100]!r}, the pad_token; save the tokenizer again")
    tokenizer.enable_truncation(length, direction=settings["truncation_side"])
    tokenizer.enable_padding(length=length, pad_id=vocabulary[pad], pad_token=pad, direction=settings["padding_side"])
    sizes = {"input_ids": max(vocabulary.values()) + 1}
    if settings["token_types"]:
        sizes["token_type_ids"] = settings["token_types"]

    def tokenize(texts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # Not as a batch, which starts threads: stages fork, and a forked process must not wait for threads of its parent.
        rows = [tokenizer.encode(*row) for row in zip(*(texts[name].tolist() for name in columns), strict=True)]
        mask = np.array([row.attention_mask for row in rows], dtype=np.int64)
        # An empty text may have no token at all, and attention to nothing is no number.
        mask[mask.sum(axis=1) == 0, 0] = 1
        found = {"input_ids": np.array([row.ids for row in rows], dtype=np.int64), "attention_mask": mask}
        if settings["token_types"]:
            found["token_type_ids"] = np.array([row.type_ids for row in rows], dtype=np.int64)
        return found

    tokenize.vocabulary_sizes = sizes  # type: ignore[attr-defined]
    return tokenize


def _columns(spec: Any, wanted: list[str]) -> list[str]:
    texts = {feature.name: feature for feature in spec.features}
    columns = [name for name in wanted if name in texts] or list(texts)
    if len(columns) > 2 or (len(columns) == 2 and not wanted):
        raise UserError(
            f"tokenizer.columns: a Hugging Face tokenizer reads one text or a pair, received {', '.join(columns)}; name one "
            "column, or two in their order"
        )
    for feature in texts.values():
        if feature.dtype != "string" or feature.shape != (1,):
            raise UserError(
                f"tokenizer.columns: {feature.name!r} is no column of UTF-8 texts, one per row ({feature.dtype}, {feature.shape})"
            )
    return columns
