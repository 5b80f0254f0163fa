"""Finds the vocabulary behind each transformed feature, by the indices that the transform graph gives to its words."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.training.vocabularies import Vocabulary

# Words of a vocabulary that are looked up, its first and last ones included.
_TRIED = 32
_NO_WORD = b"\x01switchyard: no word\x01"


def vocabularies(
    graph: tft.TFTransformOutput, features: Sequence[FeatureSpec], tokenizer: Mapping[str, str]
) -> dict[str, Vocabulary]:
    """Returns the vocabulary of each feature that is made of indices.

    Args:
        graph: the transform graph.
        features: the features that models read.
        tokenizer: feature that the user's tokenizer makes -> digest of its code.
    """
    categorical = [f for f in features if f.vocabulary_size]
    found = {f.name: Vocabulary(f.vocabulary_size or 0, tokenizer=tokenizer[f.name]) for f in categorical if f.name in tokenizer}
    sizes = {f.name: f.vocabulary_size or 0 for f in categorical if f.name not in tokenizer}
    listed = _listed(graph) if sizes else []
    if not listed:
        return found | {name: Vocabulary(size) for name, size in sizes.items()}
    layer, spec = graph.transform_features_layer(), graph.raw_feature_spec()
    best: dict[str, Vocabulary] = {}
    read = set()
    for number, words in enumerate(listed):
        tried = np.unique(np.linspace(0, len(words) - 1, _TRIED).astype(int))
        outputs = layer({name: _raw(one, [words[i] for i in tried]) for name, one in spec.items()})
        for name, size in sizes.items():
            before = _before(outputs[name], tried)
            if before is None or before + len(words) > size:
                continue
            read.add(number)
            # A vocabulary that begins with another one's words reads those, too.
            if name not in best or len(words) > len(best[name].words):
                best[name] = Vocabulary(size, tuple(w.decode("utf-8", "surrogateescape") for w in words), before)
    # The words of a vocabulary that no feature reads as they are may be combined to the indices of the others.
    known = len(read) == len(listed)
    return found | {name: best.get(name, Vocabulary(size, known=known)) for name, size in sizes.items()}


def _listed(graph: tft.TFTransformOutput) -> list[list[bytes]]:
    """Returns the words of each vocabulary file, without empty vocabularies."""
    folder = os.path.join(graph.transform_savedmodel_dir, "assets")
    names = sorted(tf.io.gfile.listdir(folder)) if tf.io.gfile.isdir(folder) else []
    return [words for name in names if (words := list(graph.vocabulary_by_name(name.removesuffix(".gz"))))]


def _raw(spec: Any, words: Sequence[bytes]) -> Any:
    """Returns a raw feature whose values are the words, then one that is no word; of another type than text, as numbers."""
    given = [*words, _NO_WORD]
    values = given if spec.dtype == tf.string else [_number(word) for word in given]
    column = tf.constant(values, tf.string) if spec.dtype == tf.string else tf.cast(tf.constant(values, tf.float64), spec.dtype)
    if not isinstance(spec, tf.io.FixedLenFeature):
        index = tf.stack([tf.range(len(given), dtype=tf.int64), tf.zeros(len(given), tf.int64)], axis=1)
        return tf.SparseTensor(index, column, [len(given), 1])
    shape = tuple(spec.shape)
    return tf.broadcast_to(tf.reshape(column, (-1, *(1 for _ in shape))), (len(given), *shape))


def _number(word: bytes) -> float:
    try:
        number = float(word)
    except ValueError:
        return -1.0
    return number if np.isfinite(number) else -1.0


def _before(output: tf.Tensor, tried: np.ndarray) -> int | None:
    """Returns the index of a vocabulary's first word, if the output holds the indices of the words tried; else None."""
    first = np.asarray(output).reshape(len(tried) + 1, -1)[:, 0]
    before = int(first[0]) - int(tried[0])
    ours = before >= 0 and np.array_equal(first[:-1], tried + before) and first[-1] not in first[:-1]
    return before if ours else None


def tokenizer_digest(folder: str) -> str:
    """Returns a digest of a tokenizer's code, a file or a folder."""
    place = Path(folder)
    files = sorted(f for f in place.rglob("*") if f.is_file() and "__pycache__" not in f.parts) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(place).as_posix() if file != place else file.name
        digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
