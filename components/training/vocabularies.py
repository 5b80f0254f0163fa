"""The words behind vocabulary indices: written by the transform stage, kept in bundles, compared when a training starts from one.

A vocabulary's indices are ordered by frequency: in newer data the same words may have other indices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.components.errors import UserError, damaged_artifact, first_line

FILE = "vocabularies.json"
# A row without an old one: it stays as initialized.
NEW = -1


@dataclass(frozen=True)
class Vocabulary:
    """The meaning of one feature's indices.

    Attributes:
        size: number of indices.
        words: the words, in the order of their indices; empty if the indices stand for no words, such as those of buckets.
        before: indices before the first word, for padding and the like; those after the last word stand for unknown words.
        tokenizer: digest of the user's tokenizer that makes the indices; empty for other features.
        known: whether the meaning is known; False if a `preprocessing_fn` combines words into others.
    """

    size: int
    words: tuple[str, ...] = ()
    before: int = 0
    tokenizer: str = ""
    known: bool = True

    @property
    def after(self) -> int:
        """Indices after the last word."""
        return self.size - self.before - len(self.words)


@dataclass(frozen=True)
class Moved:
    """How indices moved from one vocabulary to another.

    Attributes:
        old: the old index of each new one, int64 (new size,); `NEW` for a new word.
        old_size: number of old indices.
    """

    old: np.ndarray
    old_size: int

    @property
    def kept(self) -> np.ndarray:
        """Which new indices have an old one, bool (new size,)."""
        return np.asarray(self.old != NEW)


def moved(old: Vocabulary, new: Vocabulary) -> Moved | None:
    """Returns how the indices moved; None if all indices mean the same.

    Raises:
        ValueError: the meanings cannot be compared; the message says why.
    """
    if not (old.known and new.known):
        raise ValueError("its indices are made of words in a way that cannot be followed")
    if old.tokenizer != new.tokenizer:
        raise ValueError("the tokenizer is another one")
    if old == new:
        return None
    if not old.words and not new.words:
        raise ValueError(f"it had {old.size:,} values and has {new.size:,}")
    if not old.words or not new.words:
        raise ValueError("it has a vocabulary in one of them only")
    if (old.before, old.after) != (new.before, new.after):
        raise ValueError("its vocabularies have other indices for padding or for unknown words")
    index = {word: old.before + i for i, word in enumerate(old.words)}
    words = [index.get(word, NEW) for word in new.words]
    last = np.arange(old.size - old.after, old.size)
    return Moved(np.concatenate([np.arange(old.before), np.asarray(words, dtype=np.int64), last]).astype(np.int64), old.size)


def vocabularies_json(found: Mapping[str, Vocabulary]) -> str:
    """Returns the content of `vocabularies.json`: feature -> vocabulary."""
    return json.dumps({name: asdict(vocabulary) for name, vocabulary in found.items()})


def read_vocabularies(folder: Path) -> dict[str, Vocabulary]:
    """Returns feature -> vocabulary from a folder with `vocabularies.json`.

    Raises:
        UserError: the file is missing, or damaged.
    """
    file = folder / FILE
    try:
        loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {name: Vocabulary(**{**given, "words": tuple(given["words"])}) for name, given in loaded.items()}
    except FileNotFoundError:
        raise UserError(
            f"trainer.start_from: {folder} has no {FILE}: an older version transformed the examples; run again in a new workspace"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged_artifact(file, str(folder), first_line(error)) from error
