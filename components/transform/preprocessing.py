"""The `preprocessing_fn` for TFX's Transform: the user's or the default one for the features, plus the label's encoding."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from switchyard.components.errors import UserError, text_of
from switchyard.components.progress import say
from switchyard.components.text.visible import in_a_line
from switchyard.components.training.queries import HASH_PART
from switchyard.components.transform.index_ranges import note_ranges
from switchyard.components.user_code.loading import blamed, load_function
from switchyard.components.values.images import pixels

Tensors = Mapping[str, Any]

# Words beyond the 10,000 most frequent go to the out-of-vocabulary bucket.
VOCABULARY_SIZE = 10_000
# From this number of columns on, progress is reported.
_WIDE = 50


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Returns the transformed features, the encoded label and any sample weights, float32 (B,).

    The label is (B,), (B, labels) of several columns or of a list, or (B, 3) with a `group`; there is none without `labels`.

    Args:
        inputs: raw feature -> tensor, dense (B, k) or sparse.
        custom_config: `label`, `labels` (its columns), `group` (see `DatasetSummary.group`), `weight` (the column of the sample
            weights, or empty), `classes`, `images` (column -> shape: these become pixels, see `values.images`), `sequences`
            (column -> arguments of `padded`, and `mask`, the name that its mask gets), `unusable`
            (features that the default omits), `code` (None, or path and function of the user's `preprocessing_fn(inputs) ->
            outputs`, which receives neither the label nor the weights), with a tokenizer `tokenizer` (its code) and `texts`
            (columns that the default passes to it; empty: all texts).

    Raises:
        UserError: the user's function failed or did not return a dict of tensors.
    """
    label, labels = custom_config["label"], custom_config["labels"]
    group, weight = custom_config.get("group"), custom_config.get("weight", "")
    features = {k: v for k, v in inputs.items() if k not in (*labels, group, weight)}
    decoded, encoded = _declared(features, custom_config)
    features |= decoded
    code = custom_config["code"]
    if code is None:
        used = {k: v for k, v in features.items() if k not in (*custom_config["unusable"], *decoded)}
        texts = _texts(used, custom_config["texts"]) if "tokenizer" in custom_config else ()
        outputs = default_features(used, (label, weight, *decoded), texts) | encoded
    else:
        outputs = _users(features, code["path"], code["function"], [n for n in (label, *labels) if n], weight)
        note_ranges(outputs)
    if labels and set(labels) <= inputs.keys():
        each = [encode_label(_dense(inputs[n]), custom_config["classes"]) for n in labels]
        each += _hashed(_dense(inputs[group])) if group else []
        outputs[label] = tf.stack(each, axis=1) if len(each) > 1 else each[0]
    if weight in inputs:
        outputs[weight] = tf.cast(tf.reshape(_dense(inputs[weight]), [-1]), tf.float32)
    if len(features) >= _WIDE:
        # Most of the time passes afterwards, in Beam, which processes all columns at once.
        say(f"{len(features):,} columns are analyzed and transformed")
    return outputs


def _declared(features: Tensors, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the pixels of images and the padded sequences with their masks: as they are, and as the default features.

    The default omits a sequence without a value in the training split, which has neither a mean nor a vocabulary.
    """
    images = {n: pixels(tf.reshape(_dense(features[n]), [-1]), shape) for n, shape in config.get("images", {}).items()}
    decoded, encoded = dict(images), dict(images)
    for number, (name, how) in enumerate(config.get("sequences", {}).items(), start=1):
        values, mask = padded(features[name], how["length"], how["keep"])
        decoded |= {name: values, how["mask"]: mask}
        if name in config["unusable"]:
            continue
        is_text = values.dtype == tf.string
        found = _padded_indices(values, mask, f"sequence_{number}") if is_text else _scaled(values, mask)
        encoded |= {name: found, how["mask"]: mask}
    note_ranges(encoded)
    return decoded, encoded


def padded(values: Any, length: int, keep: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns sequences padded with zeros or empty texts, or cut, to (B, length), and their mask, float32, 1 where a value is.

    Args:
        values: sparse, or dense (B, k).
        length: see above.
        keep: which values of a longer sequence remain, its `first` or its `last` ones.
    """
    sparse = isinstance(values, tf.SparseTensor)
    rows = tf.RaggedTensor.from_sparse(values) if sparse else tf.RaggedTensor.from_tensor(values)
    rows = rows[:, :length] if keep == "first" else rows[:, -length:]
    return rows.to_tensor(shape=(None, length)), tf.sequence_mask(rows.row_lengths(), length, tf.float32)


def _scaled(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the z-scores of padded sequences, float32, over all values in the data; 0 where there is none."""
    # Transform's mean and variance leave NaN out.
    scaled = tft.scale_to_z_score(tf.where(mask > 0, tf.cast(values, tf.float64), math.nan))
    return tf.where(mask > 0, tf.cast(scaled, tf.float32), 0.0)


def _padded_indices(texts: tf.Tensor, mask: tf.Tensor, vocabulary: str) -> tf.Tensor:
    """Returns vocabulary indices of padded sequences, int64: 0 for padding, then the words, the last for unknown texts."""
    return tf.where(mask > 0, _indices(texts, vocabulary) + 1, tf.constant(0, tf.int64))


def _indices(texts: Any, vocabulary: str) -> tf.Tensor:
    """Returns vocabulary indices, int64; unknown texts and empty ones, which no vocabulary holds, have the last index."""
    return tft.compute_and_apply_vocabulary(texts, top_k=VOCABULARY_SIZE, num_oov_buckets=1, vocab_filename=vocabulary)


def _texts(features: Tensors, wanted: Collection[str]) -> Collection[str]:
    """Returns the columns for the tokenizer: `wanted`, or all texts if it is empty."""
    found = [name for name, value in features.items() if value.dtype == tf.string]
    if other := sorted(set(wanted) - set(found)):
        raise UserError(
            f"tokenizer.columns: {other[0]!r} is no usable column of text; columns of text: {in_a_line(found) or 'none'}"
        )
    return wanted or found


def default_features(features: Tensors, others: Collection[str] = (), texts: Collection[str] = ()) -> dict[str, tf.Tensor]:
    """Returns numbers as z-scores (missing: 0, the mean) and texts as vocabulary indices (unknown: the last index).

    `texts` stay texts (missing: the empty one), for the tokenizer.

    A feature that can be missing gets a second one, `<name>_missing`, float 0 or 1; with `_` behind it where a column, `others`
    included (the label, the sample weights), has the name.

    Columns of one type become one matrix, and all numbers are scaled as one: Transform traces the function nine times and
    analyzes each of its operations, which costs more than the values of a column.
    """
    outputs: dict[str, tf.Tensor] = {}
    words = {name: value for name, value in features.items() if value.dtype == tf.string}
    numbers: list[tuple[list[str], list[int], tf.Tensor, tf.Tensor | None]] = []
    for names in _alike(features):
        group = [features[name] for name in names]
        if isinstance(group[0], tf.SparseTensor):
            matrix, present = _filled(group)
            missing = tf.split(1.0 - present, len(names), axis=1)
            outputs |= {_free(f"{name}_missing", {*others, *features}): each for name, each in zip(names, missing, strict=True)}
            if matrix.dtype == tf.string:
                words |= zip(names, tf.split(matrix, len(names), axis=1), strict=True)
            else:
                numbers.append((names, [1] * len(names), matrix, present))
        elif group[0].dtype == tf.string:
            continue
        elif group[0].shape.rank == 2:
            numbers.append((names, [value.shape[1] for value in group], tf.cast(tf.concat(group, axis=1), tf.float64), None))
        else:
            outputs |= {n: tf.cast(tft.scale_to_z_score(tf.cast(features[n], tf.float64)), tf.float32) for n in names}
    if numbers:
        whole = tf.concat([matrix for _, _, matrix, _ in numbers], axis=1)
        scaled = tft.scale_to_z_score(whole, elementwise=True)
        # A column without any number to analyze has the mean NaN: its values stay as they are.
        scaled = tf.cast(tf.where(tf.math.is_finite(whole) & tf.math.is_nan(scaled), whole, scaled), tf.float32)
        matrices = tf.split(scaled, [sum(widths) for _, widths, _, _ in numbers], axis=1)
        for (names, widths, _, present), matrix in zip(numbers, matrices, strict=True):
            values = matrix if present is None else tf.where(present > 0, matrix, 0.0)
            outputs |= zip(names, tf.split(values, widths, axis=1), strict=True)
    outputs |= {name: words.pop(name) for name in texts}
    for number, (name, value) in enumerate(words.items(), start=1):
        if len(words) >= _WIDE:
            say(f"preparing the vocabulary of column {number:,} of {len(words):,}")
        outputs[name] = _indices(value, f"vocabulary_{number}")
    return outputs


def _alike(features: Tensors) -> list[list[str]]:
    """Returns the names of the features, grouped by type, by whether they are sparse, and by rank."""
    found: dict[Any, list[str]] = {}
    for name, value in features.items():
        found.setdefault((value.dtype, isinstance(value, tf.SparseTensor), value.shape.rank), []).append(name)
    return list(found.values())


def _filled(columns: Sequence[tf.SparseTensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns n sparse tensors with at most one value per row as one dense tensor and whether each has a value.

    Args:
        columns: all of one type.

    Returns:
        The values, (B, n), string or float64; without a value "", or NaN, which Transform's mean and variance leave out.
        1 or 0, float32 (B, n).
    """
    shape = tf.stack([columns[0].dense_shape[0], 1])
    joined = tf.sparse.concat(1, [tf.SparseTensor(c.indices, c.values, shape) for c in columns])
    is_text = joined.dtype == tf.string
    values = joined.values if is_text else tf.cast(joined.values, tf.float64)

    def dense(values: tf.Tensor, default: Any) -> tf.Tensor:
        filled = tf.sparse.to_dense(tf.SparseTensor(joined.indices, values, joined.dense_shape), default_value=default)
        return tf.reshape(filled, [-1, len(columns)])

    return dense(values, "" if is_text else math.nan), dense(tf.ones_like(values, tf.float32), 0.0)


def encode_label(label: tf.Tensor, classes: list[Any]) -> tf.Tensor:
    """Returns class indices, int64 (B,), in the order of `classes`; without classes float32 (B,), or (B, k) of lists."""
    if label.shape.rank == 2 and (label.shape[1] or 1) > 1:
        return tf.cast(label, tf.float32)
    flat = tf.reshape(label, [-1])
    if not classes:
        return tf.cast(flat, tf.float32)
    return tf.argmax(tf.equal(flat[:, tf.newaxis], tf.constant(classes, dtype=flat.dtype)[tf.newaxis, :]), axis=1)


def _hashed(group: tf.Tensor) -> list[tf.Tensor]:
    """Returns 48 bits of a value's hash as two numbers that float32 holds, each (B,)."""
    flat = tf.reshape(group, [-1])
    found = tf.strings.to_hash_bucket_fast(flat if flat.dtype == tf.string else tf.strings.as_string(flat), HASH_PART**2)
    return [tf.cast(found // HASH_PART, tf.float32), tf.cast(found % HASH_PART, tf.float32)]


def _users(features: Tensors, path: str, function: str, labels: Sequence[str], weight: str) -> dict[str, Any]:
    name = os.path.basename(path)

    def hint(error: BaseException) -> str:
        named = any(repr(label) in text_of(error) for label in labels)
        about_label = " preprocessing_fn does not receive the label; it is encoded automatically." if named else ""
        return f".{about_label} Features: {in_a_line(features)}."

    with blamed(f"preprocessing: {name}: ", os.path.dirname(path), hint):
        outputs = load_function(path, function)(dict(features))
    if not isinstance(outputs, dict) or not outputs or not all(isinstance(v, tf.Tensor) for v in outputs.values()):
        raise UserError(
            f"preprocessing: {name}: {function} must return a dict of name -> dense tensor, at least one; received {outputs!r}."
        )
    for label in {*labels} & outputs.keys():
        raise UserError(f"preprocessing: {name}: {function} returns a feature named like the label, {label!r}. Rename it.")
    if weight in outputs:
        raise UserError(
            f"preprocessing: {name}: {function} returns a feature named like the sample weights, {weight!r}. Rename it."
        )
    return outputs


def _dense(value: Any) -> tf.Tensor:
    """Returns (B, 1) for a sparse tensor with at most one value per row; a dense tensor unchanged."""
    if not isinstance(value, tf.SparseTensor):
        return value
    default = "" if value.dtype == tf.string else tf.zeros([], value.dtype)
    one = tf.SparseTensor(value.indices, value.values, [value.dense_shape[0], 1])
    return tf.reshape(tf.sparse.to_dense(one, default_value=default), [-1, 1])


def mask_names(sequences: Iterable[str], columns: Collection[str]) -> dict[str, str]:
    """Returns sequence -> the name of its mask, `<sequence>_mask`, with `_` behind it where a column has the name."""
    return {name: _free(f"{name}_mask", columns) for name in sequences}


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
