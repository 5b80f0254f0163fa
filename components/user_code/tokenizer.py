"""The user's tokenizer: a Python function from texts, or bytes, to arrays, the same in the transform stage and in every bundle.

The transform stage writes a folder that the bundle copies: the code, `tokenizer.json` with inputs and outputs, and samples, a few
texts of each split with the arrays that training read. Loading the folder computes the samples again, so that a tokenizer that
gives other arrays here (`hash()` of a text, another version of a library) is refused before it scores anything.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError, damaged_artifact, did_you_mean, first_line
from switchyard.components.user_code.loading import DEPENDENCIES, UserCode, admit_bundled, blamed, folder_of

FOLDER = "tokenizer"
TEXT, BYTES = "string", "bytes"
_CODE, _FILE, _SAMPLES = "code", "tokenizer.json", "samples"
_SAMPLE_ROWS, _SAMPLE_BYTES = 8, 1 << 20
_DTYPES = {"b": "int64", "i": "int64", "u": "int64", "f": "float32"}
# Floats, such as the pixels of a decoded image.
_TOLERANCE = 1e-6

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TokenizerSpec:
    """The argument of `build_tokenizer(spec)`.

    Attributes:
        features: the texts; `dtype` is `string` (values are `str`), or `bytes` for a column with values that are not UTF-8.
    """

    features: tuple[FeatureSpec, ...]


class RefusedRowsError(UserError):
    """A tokenizer fails for some rows; `rows` are their indices in the batch, in order."""

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class Tokenizer:
    """A tokenizer, called with transformed features.

    Args:
        code: `build_tokenizer`.
        texts: the features that it replaces.

    Attributes:
        texts: as given.
        outputs: the features that it makes, by name.

    Raises:
        UserError: the user's code cannot be imported, fails, or does not return what it must.
    """

    def __init__(self, code: UserCode, texts: Sequence[FeatureSpec]) -> None:
        self.texts = tuple(texts)
        self._code = code
        build = code.load()
        self._name, self._folder = os.path.basename(code.path), folder_of(build)
        with blamed(f"tokenizer: {code.function} failed: ", self._folder):
            self._function = build(TokenizerSpec(self.texts))
        if not callable(self._function):
            raise self._wrong(f"{code.function} must return a function of texts, received {self._function!r}")
        # A text may be missing, so the empty one must be possible; it also tells the shapes before any data is read.
        empty = {f.name: np.full((1, *f.shape), b"", dtype=object) for f in self.texts}
        found = self._tokens(empty, 1)
        sizes = getattr(self._function, "vocabulary_sizes", {})
        if isinstance(sizes, Mapping) and (unknown := [str(name) for name in sizes if name not in found]):
            raise self._wrong(
                f"vocabulary_sizes names {unknown[0]!r}, which the function does not return."
                f"{did_you_mean(unknown[0], found)} It returns: {', '.join(sorted(found))}"
            )
        self.outputs = tuple(self._described(name, array, sizes) for name, array in sorted(found.items()))

    def __call__(self, features: Arrays) -> dict[str, np.ndarray]:
        """Returns the features of B rows with the texts, object arrays of bytes, replaced by the tokenizer's arrays.

        Raises:
            UserError: the tokenizer fails for these rows, or its arrays differ from `outputs` in names, types or shapes.
        """
        texts = {f.name: features[f.name] for f in self.texts}
        found = self._tokens(texts, len(next(iter(texts.values()))))
        if set(found) != {f.name for f in self.outputs}:
            raise self._wrong(f"returned {sorted(found)}, and {[f.name for f in self.outputs]} for an empty text")
        for spec in self.outputs:
            array = found[spec.name]
            if array.shape[1:] != spec.shape or array.dtype != spec.dtype:
                raise self._wrong(
                    f"{spec.name!r} is {array.dtype} of shape {array.shape[1:]} per row, and {spec.dtype} of shape {spec.shape} "
                    "for an empty text; pad and cut all rows to one length"
                )
            size = spec.vocabulary_size
            if size and array.size and not (array.min() >= 0 and array.max() < size):
                raise self._wrong(
                    f"{spec.name!r} has values from {array.min()} to {array.max()}, and its vocabulary {size}; "
                    f"set vocabulary_sizes to at least {array.max() + 1} for it, and return no value below 0"
                )
        return {**{name: array for name, array in features.items() if name not in texts}, **found}

    def of_good_rows(self, features: Arrays) -> dict[str, np.ndarray]:
        """Returns the result of a call, see `__call__`.

        Raises:
            RefusedRowsError: the tokenizer fails for some rows; the others are computed without error.
        """
        try:
            return self(features)
        except UserError as error:
            rows = len(next(iter(features.values())))
            bad = self._failing(features, 0, rows) if rows > 1 else [0]
            if not bad:
                raise  # it fails for rows that do not fail alone
            raise RefusedRowsError(f"{str(error).rstrip('.')}", bad) from error

    def _failing(self, features: Arrays, start: int, stop: int) -> list[int]:
        """Returns the rows from `start` to before `stop` that fail alone, found by halving."""
        try:
            self({name: array[start:stop] for name, array in features.items()})
        except UserError:
            if stop - start == 1:
                return [start]
            half = (start + stop) // 2
            return [*self._failing(features, start, half), *self._failing(features, half, stop)]
        return []

    def _tokens(self, texts: Arrays, rows: int) -> dict[str, np.ndarray]:
        given = {f.name: self._decoded(f, texts[f.name].reshape(rows, *f.shape)) for f in self.texts}
        with blamed(f"tokenizer: {self._name} failed: ", self._folder):
            found = self._function(given)
        arrays = {name: self._as_array(name, array) for name, array in found.items()} if isinstance(found, Mapping) else None
        if not arrays or not all(isinstance(name, str) for name in arrays):
            raise self._wrong(f"must return a dict of name -> array, received {type(found).__name__}")
        return {name: self._array(name, array, rows) for name, array in arrays.items()}

    def _decoded(self, spec: FeatureSpec, values: np.ndarray) -> np.ndarray:
        values = values[:, 0] if spec.shape == (1,) else values
        if spec.dtype == BYTES:
            return values
        try:
            decoded = [value.decode() for value in values.ravel()]
        except UnicodeDecodeError:
            raise UserError(
                f"tokenizer: the text {spec.name!r} is not UTF-8; a column of bytes keeps them under its own name, so return it "
                "from preprocessing_fn by the name that it has in the data"
            ) from None
        return np.asarray([*decoded, None], dtype=object)[:-1].reshape(values.shape)

    def _as_array(self, name: str, values: Any) -> np.ndarray:
        try:
            return np.asarray(values)
        except ValueError:  # lists of several lengths
            raise self._wrong(f"{name!r} must be an array of numbers with rows of one length; pad and cut all rows") from None

    def _array(self, name: str, array: np.ndarray, rows: int) -> np.ndarray:
        if array.dtype.kind not in _DTYPES:
            raise self._wrong(f"{name!r} must be an array of numbers with rows of one length, received {array.dtype}")
        if not array.ndim or len(array) != rows:
            raise self._wrong(f"{name!r} must have a row for each of {rows} texts, received shape {array.shape}")
        array = array[:, np.newaxis] if array.ndim == 1 else array
        return np.ascontiguousarray(array, dtype=_DTYPES[array.dtype.kind])

    def _described(self, name: str, array: np.ndarray, sizes: Any) -> FeatureSpec:
        if 0 in array.shape:
            raise self._wrong(
                f"{name!r} is empty, of shape {array.shape[1:]} per row, for an empty text; pad all rows to one length"
            )
        size = sizes.get(name) if isinstance(sizes, Mapping) else sizes
        whole = isinstance(size, int | np.integer) and size > 0
        if size is not None and not (whole and array.dtype == np.int64):
            raise self._wrong(f"vocabulary_sizes must map names of whole-number arrays to their sizes, received {sizes!r}"[:300])
        return FeatureSpec(name, array.dtype.name, array.shape[1:], int(size) if size is not None else None)

    def _wrong(self, what: str) -> UserError:
        return UserError(f"tokenizer: {self._name}: {what}.")

    def save(self, folder: str) -> None:
        """Writes the code and `tokenizer.json` to a folder, which may be in an object store."""
        root = Path(self._code.path).parent
        copy_folder(str(root), os.path.join(folder, _CODE))
        described = {
            "file": self._name,
            "function": self._code.function,
            "texts": [dataclasses.asdict(f) for f in self.texts],
            "outputs": [dataclasses.asdict(f) for f in self.outputs],
        }
        _write(os.path.join(folder, _FILE), json.dumps(described, indent=1).encode())

    def sample(self, features: Arrays, found: Arrays) -> bytes:
        """Returns the first rows of the texts with their arrays, for `save_sample`.

        Args:
            features: argument of a call.
            found: its result.
        """
        rows, size = 0, 0
        texts = [features[f.name].reshape(len(features[f.name]), -1) for f in self.texts]
        for row in zip(*texts, strict=True):
            size += sum(len(value) for values in row for value in values)
            if rows == _SAMPLE_ROWS or (rows and size > _SAMPLE_BYTES):
                break
            rows += 1
        columns = {f"t{i}": pa.array(values[:rows].tolist(), pa.list_(pa.binary())) for i, values in enumerate(texts)}
        for i, spec in enumerate(self.outputs):
            columns[f"o{i}"] = pa.array(
                found[spec.name][:rows].reshape(rows, -1).tolist(), pa.list_(pa.from_numpy_dtype(spec.dtype))
            )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, pa.schema([(name, column.type) for name, column in columns.items()])) as writer:
            writer.write_batch(pa.record_batch(columns))
        return bytes(sink.getvalue())

    def check(self, samples: Iterable[Path]) -> None:
        """Raises UserError if the tokenizer gives other arrays for the samples' texts than training read."""
        for file in samples:
            try:
                table = pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()
            except pa.ArrowException as error:
                raise damaged_artifact(file, file.parents[2], first_line(error)) from error
            rows = table.num_rows
            texts = {}
            for i, spec in enumerate(self.texts):
                flat = [value for row in table[f"t{i}"].to_pylist() for value in row]
                texts[spec.name] = np.asarray([*flat, None], dtype=object)[:-1].reshape(rows, *spec.shape)
            found = self(texts)
            for i, spec in enumerate(self.outputs):
                read = np.asarray(table[f"o{i}"].to_pylist(), spec.dtype).reshape(rows, *spec.shape)
                if spec.dtype == "int64":
                    same = np.array_equal(read, found[spec.name])
                else:
                    same = np.allclose(read, found[spec.name], rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
                if not same:
                    raise self._wrong(
                        f"gives another {spec.name!r} here than training read, of the {file.stem} split: it depends on "
                        "more than the text, such as hash() of a text, an environment variable or a library's version. Make it "
                        "depend on the text alone and run again; after an update of a library, run in a new workspace"
                    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """Returns the tokenizer of a folder that `Tokenizer.save` wrote; runs the user's code in it.

    Raises:
        UserError: the code cannot be imported, or gives other arrays than in training; or the folder is damaged.
    """
    try:
        content = (folder / _FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise damaged_artifact(folder / _FILE, folder, first_line(error)) from error
    written = _written(str(folder / _FILE), content)
    code = folder / _CODE
    admit_bundled(code, "tokenizer")
    found = Tokenizer(UserCode(str(code / written.file), written.function), written.texts)
    if found.outputs != written.outputs:
        raise UserError(
            f"tokenizer: {written.file}: makes {_listed(found.outputs)} here, and made {_listed(written.outputs)} in training: "
            "it depends on more than the text. Make it depend on the text alone and run again."
        )
    found.check(sorted((folder / _SAMPLES).glob("*.arrow")))
    return found


@dataclass(frozen=True)
class _Written:
    """The content of `tokenizer.json`."""

    file: str
    function: str
    texts: tuple[FeatureSpec, ...]
    outputs: tuple[FeatureSpec, ...]


def _written(path: str, content: str) -> _Written:
    try:
        found = json.loads(content)
        texts, outputs = (tuple(FeatureSpec(**{**f, "shape": tuple(f["shape"])}) for f in found[k]) for k in ("texts", "outputs"))
        written = _Written(found["file"], found["function"], texts, outputs)
        if Path(written.file).name != written.file or not written.file.endswith(".py"):
            raise ValueError(f"it names the file {written.file[:60]!r}")
    except (ValueError, LookupError, TypeError) as error:
        raise damaged_artifact(path, os.path.dirname(path), first_line(error)) from error
    return written


def tokenizer_outputs(folder: str) -> tuple[FeatureSpec, ...]:
    """Returns the features that the tokenizer in a folder makes, without loading it; the folder may be in an object store."""
    import tensorflow as tf

    path = os.path.join(folder, _FILE)
    with tf.io.gfile.GFile(path) as file:
        return _written(path, file.read()).outputs


def _listed(outputs: Iterable[FeatureSpec]) -> str:
    return ", ".join(f"{f.name} ({f.dtype} {f.shape}, vocabulary {f.vocabulary_size})" for f in outputs)


def save_sample(folder: str, split: str, content: bytes) -> None:
    """Writes a split's sample to a tokenizer's folder, which may be in an object store."""
    import tensorflow as tf

    # Renamed when complete: a worker may load the folder meanwhile.
    target = os.path.join(folder, _SAMPLES, f"{split}.arrow")
    _write(f"{target}.new", content)
    tf.io.gfile.rename(f"{target}.new", target, overwrite=True)


def copy_folder(source: str, target: str) -> None:
    """Copies a folder with its subfolders, except bytecode and `DEPENDENCIES`; both may be in an object store."""
    import tensorflow as tf

    for place, _, names in tf.io.gfile.walk(source):
        inside = place[len(source) :].strip("/")
        if "__pycache__" in Path(inside).parts:
            continue
        there = os.path.join(target, inside)
        tf.io.gfile.makedirs(there)
        for name in set(names) - {DEPENDENCIES}:
            tf.io.gfile.copy(os.path.join(place, name), os.path.join(there, name), overwrite=True)


def _write(path: str, content: bytes) -> None:
    import tensorflow as tf

    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content)
