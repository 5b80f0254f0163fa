"""Derives the name of a pipeline without a YAML from the location of its data; models, runs and champion are found by it.

Two data sets must not share a name: `churn/*.csv` is `churn`, `fraud/part-*.csv` is `fraud_part`, `rides.csv` is `rides`.
Generic words (`data`, `train`, `part`) get the folder as prefix: `churn/data/train.csv` is `churn_data_train`.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence

from switchyard.components.text.escaping import MAGIC, split_pattern

_SAYS_NOTHING = frozenset(
    (
        *("csv", "data", "dataset", "datasets", "file", "files", "input", "inputs", "jsonl", "parquet", "part", "parts", "raw"),
        *("rows", "shard", "split", "table", "tfrecord", "tmp", "train", "training"),
    )
)
_LONGEST = 63


def name_of(paths: Sequence[str]) -> str:
    """Returns a pipeline's name for files, globs or URIs, derived from the first one."""
    _, is_uri, rest = paths[0].rpartition("://")
    there, looked_for = ("", rest) if is_uri else split_pattern(os.path.abspath(paths[0]))
    parts = [(part, False) for part in there.split("/") if part] + [(part, True) for part in looked_for.split("/") if part]
    if not parts:
        return "data"
    (file, is_pattern), *folders = reversed(parts)
    words = _words(file, is_pattern=is_pattern)
    # A pattern always needs its folder: `part-*.csv` exists in many folders.
    wants_folder = bool(MAGIC.search(looked_for))
    for folder, is_pattern in folders:
        if words and not wants_folder and not _SAYS_NOTHING.issuperset(words):
            break
        before = _words(folder, is_pattern=is_pattern)
        words, wants_folder = [*before, *words], wants_folder and not before
    name = "_".join(words) or "data"
    name = name if name[0].isalpha() else f"data_{name}"
    # The end is the most specific part.
    return name if len(name) <= _LONGEST else re.sub("^[^a-z]+", "", name[-_LONGEST:]) or "data"


def _words(part: str, *, is_pattern: bool) -> list[str]:
    """Returns the words of a file's or folder's name, without glob characters and extensions."""
    part = re.sub(r"\[[^]]*\]", "*", part) if is_pattern else part
    stem = part.split(".")[0] if not part.startswith(".") else part[1:]
    plain = unicodedata.normalize("NFKD", stem.casefold())
    words = re.findall(r"[a-z0-9]+", "".join(c for c in plain if not unicodedata.combining(c)))
    if any(c.isalnum() and not c.isascii() for c in plain):  # names in other scripts must stay distinct
        words.append(hashlib.sha256(stem.encode(errors="surrogatepass")).hexdigest()[:6])
    return words
