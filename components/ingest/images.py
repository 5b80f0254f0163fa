"""Reads the columns of images: paths of files and texts in base64 become the encoded images."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.readers import reader
from switchyard.components.ingest.sources import fingerprint, format_of, is_local, open_file
from switchyard.components.ingest.stores import concurrently, file_systems
from switchyard.components.values.base64_values import from_base64
from switchyard.components.values.images import MOST_BYTES, fault, is_image

if TYPE_CHECKING:
    from switchyard.components.ingest.input_spec import InputSpec

# Rows of a batch with images, which are read into memory.
_ROWS = 64
_NO_LIMIT = 2**62


class NoImageError(ValueError):
    """A value that is no image; the message says what the column must hold."""


def in_parts(batches: Iterable[pa.RecordBatch], images: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Yields batches small enough for their images, if there are columns of images."""
    for batch in batches:
        if not images:
            yield batch
            continue
        for at in range(0, batch.num_rows, _ROWS):
            yield batch.slice(at, _ROWS)


def checked_images(
    batch: pa.RecordBatch, images: Mapping[str, Sequence[int]], file: str, first: int, bad: BadRows, *, decode: bool
) -> pa.RecordBatch:
    """Returns the rows whose images can be decoded, with the columns of images as binary; the others go to `bad`.

    Args:
        batch: rows of one file.
        images: column -> (height, width, channels).
        file: name of the file.
        first: row number of the batch's first row in the file.
        bad: collects the bad rows.
        decode: whether to decode the images; otherwise their headers alone are checked.
    """
    keep = [True] * batch.num_rows
    for name in (n for n in images if n in batch.schema.names):
        found: list[bytes | None] = []
        values = batch.column(name).to_pylist()
        read = _reader(file, values)
        for row, value in enumerate(values):
            try:
                image = _encoded(value, read)
                if wrong := fault(image, images[name][2], decode=decode):
                    raise NoImageError(wrong)
                found.append(image)
            except NoImageError as error:
                found.append(None)
                if keep[row]:
                    bad.add(file, f"row {first + row}: column {name!r} {error}", _shown(value))
                keep[row] = False
        batch = _with(batch, name, found)
    return batch if all(keep) else batch.filter(pa.array(keep, pa.bool_()))


def with_images(batch: pa.RecordBatch, images: Collection[str], file: str) -> pa.RecordBatch:
    """Returns rows with the columns of images as binary; a value that is no image stays as it is, for the model to refuse."""
    for name in (n for n in images if n in batch.schema.names):
        found: list[bytes | None] = []
        values = batch.column(name).to_pylist()
        read = _reader(file, values)
        for value in values:
            try:
                found.append(_encoded(value, read))
            except NoImageError:
                found.append(value if isinstance(value, bytes) or value is None else str(value).encode())
        batch = _with(batch, name, found)
    return batch


def image_files(
    images: Collection[str], kinds: Mapping[str, str], options: CsvOptions, missing: Sequence[str] | None = None
) -> list[str]:
    """Returns the files that columns of images name, sorted; those that do not exist or may not be read are left out.

    Args:
        images: the columns of images.
        kinds: file -> its format.
        options: dialect of the CSVs.
        missing: texts that mean missing.
    """
    if not images:
        return []
    found: set[str] = set()
    for file, kind in kinds.items():
        with closing(reader(kind, options, lambda name: name in images)(file, BadRows(_NO_LIMIT), missing)) as batches:
            for batch in batches:
                for name in (n for n in images if n in batch.schema.names):
                    texts = (_path(v) for v in batch.column(name).to_pylist())
                    found.update(_place(file, text) for text in texts if text is not None)
    places = sorted(filter(None, found))
    there = [_exists(p) for p in places] if all(map(is_local, places)) else concurrently(_exists, places)
    return [place for place, exists in zip(places, there, strict=True) if exists]


def data_fingerprint(spec: InputSpec) -> str:
    """Returns a SHA-256 of the input files and of the images that they name, see `fingerprint`."""
    files = [f for group in spec.files().values() for f in group]
    return fingerprint_with_images(files, images_of_input(spec, files, spec.format))


def fingerprint_with_images(files: Sequence[str], images: Sequence[str]) -> str:
    """Returns a SHA-256 of files and of the images that they name, each with its place beside the first file.

    A row's image is found by its place, and one that is missing is no file.
    """
    digest = fingerprint([*files, *images])
    if not images:
        return digest
    places = [os.path.relpath(image, os.path.dirname(files[0])) for image in images]
    return hashlib.sha256("\0".join([digest, *places]).encode()).hexdigest()


def images_of_input(spec: InputSpec, files: Iterable[str], kind: str) -> list[str]:
    """Returns the files that the columns of images of files of a format (`auto`: by name) name, see `image_files`."""
    return image_files(spec.images, {f: format_of(f, kind) for f in files}, CsvOptions.of(spec.csv), spec.missing_values)


def _with(batch: pa.RecordBatch, name: str, values: Sequence[bytes | None]) -> pa.RecordBatch:
    place = batch.schema.get_field_index(name)
    return batch.set_column(place, pa.field(name, pa.binary()), pa.array(values, pa.binary()))


def _encoded(value: Any, read: Callable[[str], bytes]) -> bytes:
    """Returns the encoded image of a value: the image, its path or its base64."""
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    if value is None or value in (b"", ""):
        raise NoImageError("has no image")
    path = _path(value)
    if path is not None:
        return read(path)
    data = value.encode() if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise NoImageError("must hold JPEG or PNG images, their paths or their base64")
    if is_image(data):
        return data
    try:
        return from_base64(data.decode())
    except ValueError:
        raise NoImageError("must hold JPEG or PNG images, their paths or their base64") from None


def _path(value: Any) -> str | None:
    """Returns the path in a value; None for an image and for base64, which has no dot."""
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    if isinstance(value, bytes):
        if is_image(value):
            return None
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) and "." in value and "\0" not in value else None


def _place(file: str, path: str) -> str:
    """Returns the place of a path in a file's folder; empty for one outside of the folder, by a link too."""
    folder, separator, _ = file.rpartition("/")
    if not is_local(file):
        inside = posixpath.normpath(path)
        outside = "://" in path or inside.startswith(("/", "../")) or inside == ".."
        return "" if outside else f"{folder}/{inside}"
    folder = folder or separator or "."
    place = os.path.normpath(os.path.join(folder, path))
    real = os.path.join(os.path.realpath(folder), "")
    return place if os.path.realpath(place).startswith(real) else ""


def _exists(place: str) -> bool:
    if is_local(place):
        return Path(place).is_file()
    return bool(file_systems().exists(place))


def _reader(file: str, values: Sequence[Any]) -> Callable[[str], bytes]:
    """Returns a function that reads the file of a path among `values`; those in an object store are read together."""
    if is_local(file):
        return partial(_read, file)
    paths = {path for path in map(_path, values) if path is not None}

    def result(path: str) -> bytes | NoImageError:
        try:
            return _read(file, path)
        except NoImageError as error:
            return error

    contents = dict(zip(paths, concurrently(result, paths), strict=True))

    def read(path: str) -> bytes:
        content = contents[path]
        if isinstance(content, NoImageError):
            raise content
        return content

    return read


def _read(file: str, path: str) -> bytes:
    place = _place(file, path)
    if not place:
        raise NoImageError("names a file outside of the folder of the data")
    if is_local(place) and not Path(place).is_file():  # a pipe would never end
        raise NoImageError("names no file in the folder of the data")
    try:
        with open_file(place) as image:
            return image.read(MOST_BYTES + 1)
    except (UserError, OSError) as error:
        raise NoImageError(f"must hold readable files: {error}") from None


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes" if is_image(value) else repr(value[:100].decode("utf-8", "replace"))
    return repr(value)[:100]
