"""From texts to the indices of their words, in plain Python; any library can take its place.

The index of a word is a hash that is the same in every process, unlike `hash()`, so that training and server read the same.
"""

import re
import zlib

import numpy as np

# Of longer texts the first words are read. Two words may share an index; a larger SIZE makes that rarer.
SIZE, LENGTH = 8192, 64


def build_tokenizer(spec):
    """Returns a function from texts to int64 (B, LENGTH) under the same names; 0 is no word."""

    def tokenize(texts):
        return {name: indices(values) for name, values in texts.items()}

    tokenize.vocabulary_sizes = {feature.name: SIZE for feature in spec.features}
    return tokenize


def indices(texts):
    """Returns the indices of the words of B texts."""
    found = np.zeros((len(texts), LENGTH), dtype=np.int64)
    for row, text in zip(found, texts, strict=True):
        # A column with a value that is not UTF-8 comes as bytes.
        words = re.findall(r"\w+", (text if isinstance(text, str) else text.decode(errors="replace")).lower())[:LENGTH]
        row[: len(words)] = [1 + zlib.crc32(word.encode()) % (SIZE - 1) for word in words]
    return found
