"""From a review to word indices, in plain Python. An index is a hash that is the same in every process, unlike `hash()`."""

import re
import zlib

import numpy as np

SIZE, LENGTH = 2048, 32


def build_tokenizer(spec):
    """Returns texts -> `words`: int64 (B, 32), 0 where a review has no more words."""

    def tokenize(texts):
        words = np.zeros((len(texts["review"]), LENGTH), dtype=np.int64)
        for row, text in zip(words, texts["review"], strict=True):
            found = re.findall(r"\w+", text.lower())[:LENGTH]
            row[: len(found)] = [1 + zlib.crc32(word.encode()) % (SIZE - 1) for word in found]
        return {"words": words}

    tokenize.vocabulary_sizes = {"words": SIZE}
    return tokenize
