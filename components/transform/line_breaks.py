"""Names the text columns with values that no vocabulary holds: TFX stores a vocabulary line by line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchyard.components.data.summary import DatasetSummary


def line_break_notes(summary: DatasetSummary, config: Mapping[str, Any]) -> list[str]:
    """Returns a note for each column whose values may be looked up in a vocabulary as a whole, and hold line breaks.

    Args:
        summary: of the data set.
        config: see `preprocessing.preprocessing_fn`. What a tokenizer reads is looked up word by word.
    """
    tokenized = set(summary.broken_lines) - set(summary.sequences) if "tokenizer" in config else set()
    tokenized &= set(config.get("texts") or tokenized)
    unread = {*tokenized, *summary.no_features, *config.get("unusable", ())}
    return [
        f"{name}: {count:,} values hold a line break: each is an unknown word to a vocabulary, as TFX's leave it out; replace "
        "the line breaks, or set tokenizer to read its words"
        for name, count in summary.broken_lines.items()
        if name not in unread
    ]
