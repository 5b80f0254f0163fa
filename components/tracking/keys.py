"""Keys that MLflow accepts, of names that come from the data."""

from __future__ import annotations

import hashlib
import re

# MLflow limits keys to 250 characters, including the prefix.
_LENGTH = 150


def key_of(name: str) -> str:
    """Returns a name from the data for use in a key: unchanged if MLflow accepts it, else truncated, with a hash."""
    plain = re.sub(r"[^\w\-. ]", "_", name, flags=re.ASCII).strip()[:_LENGTH]
    if plain == name and plain.strip("."):
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def metric_key(name: str) -> str:
    """Returns the key of a metric as MLflow accepts it: of a user's `acc@5`, or of `auc/<column>`, see `key_of`."""
    metric, slash, column = name.partition("/")
    metric = key_of(metric) if re.search(r"[^\w\-. :]", metric, re.ASCII) else metric
    return f"{metric}/{key_of(column)}" if slash else metric
