"""Which data set a registered version was trained on: the patterns it was read by, as a tag of the version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

TAG = "switchyard.data_path"
_LONGEST = 4900  # MLflow takes 5,000 characters a tag
_SHOWN = 3


def tags_of(patterns: Sequence[str]) -> dict[str, str]:
    """Returns the tag of a version that was trained on what these patterns match; none where it would be too long."""
    text = json.dumps(list(patterns), ensure_ascii=False)
    return {TAG: text} if patterns and len(text) <= _LONGEST else {}


def another(tags: Mapping[str, str], patterns: Sequence[str]) -> str:
    """Returns the data set of a version where it is another one than these patterns name; empty where it is not, or is unknown.

    One pattern in common makes two data sets one: files are added to it and taken away.
    """
    try:
        trained_on = json.loads(tags.get(TAG, "[]"))
    except ValueError:  # a person edited the tag
        return ""
    if not isinstance(trained_on, list) or not trained_on or not patterns or set(map(str, trained_on)) & set(patterns):
        return ""
    more = len(trained_on) - _SHOWN
    return ", ".join(map(str, trained_on[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
