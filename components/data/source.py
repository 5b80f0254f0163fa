"""Tags a registered version with the patterns of its training data and compares them with other patterns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

TAG = "switchyard.data_path"
_LONGEST = 4900  # MLflow limits tags to 5,000 characters
_SHOWN = 3


def tags_of(patterns: Sequence[str]) -> dict[str, str]:
    """Returns the tag for a version trained on files matching the patterns; empty when the tag would be too long."""
    text = json.dumps(list(patterns), ensure_ascii=False)
    return {TAG: text} if patterns and len(text) <= _LONGEST else {}


def another(tags: Mapping[str, str], patterns: Sequence[str]) -> str:
    """Returns a version's data set when it differs from the one these patterns name; empty when it is the same or unknown.

    One common pattern makes two data sets the same, because files are added and removed over time.
    """
    try:
        trained_on = json.loads(tags.get(TAG, "[]"))
    except ValueError:  # the tag was edited by hand
        return ""
    if not isinstance(trained_on, list) or not trained_on or not patterns or set(map(str, trained_on)) & set(patterns):
        return ""
    more = len(trained_on) - _SHOWN
    return ", ".join(map(str, trained_on[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
