"""Embeds small local files (the user's code) in the compiled pipeline, without a registry, a bucket or a new image.

Files that `uploaded_files` stored are embedded by reference. All are part of the task's command and therefore of its cache key:
equal files give equal bytes in every compilation.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import lzma
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from switchyard.components.errors import UserError
from switchyard.components.process.own_folder import own_folder
from switchyard.pipelines.runners.kubeflow.uploaded_files import fetch, is_stored

PLACE = "{{files}}"
# Linux limits one argument to 128 KiB, and a task's source is passed as one.
LIMIT = 90_000
# Suffix -> largest size in bytes kept as readable text; larger files are compressed, as the cluster stores several copies.
_READABLE = {".py": 30_000, "": 2_000}
# Largest parameter kept as readable text, in characters. KFP's pages show parameters; the cluster stores eight copies.
_READABLE_PARAMETER = 1_000
_DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {"lzma": lzma.decompress, "bz2": bz2.decompress}
_COMPRESS: Sequence[tuple[str, Callable[[bytes], bytes]]] = (
    # The .xz container is as long as a compressed page of text; incompressible content is shorter with it.
    ("lzma", partial(lzma.compress, format=lzma.FORMAT_ALONE, preset=9)),
    ("lzma", lzma.compress),
    ("bz2", bz2.compress),
)
_BINARY = re.compile(r"(lzma|bz2)\+base85:")
# Base 85 without the characters that JSON escapes (Go's also <, > and &) or that KFP and Argo parse as placeholders.
_SAFE = str.maketrans("&<>{}$", ",./:[]")
_BACK = str.maketrans(",./:[]", "&<>{}$")
_WHEEL = ".unpacked/"


@dataclass(frozen=True)
class Carried:
    """Local files and folders embedded in the pipeline.

    Attributes:
        places: local path -> its name in the task.
        contents: path in the task -> content as text.
        readers: local path -> nodes that read it; default: all.
        stored: reference of an uploaded file -> the file on this machine.
    """

    places: Mapping[str, str]
    contents: Mapping[str, str]
    readers: Mapping[str, Collection[str]]
    stored: Mapping[str, Path] = field(default_factory=dict)

    def replaced(self, value: str, node: str) -> tuple[str, set[str]]:
        """Returns a node's exec property with local paths replaced by placeholders, and the names of the files it may need."""
        used: set[str] = set()
        for place in sorted(self.places, key=len, reverse=True):
            whole = re.compile(re.escape(place) + r"(?![\w.-])")
            if whole.search(value) and node in self.readers.get(place, (node,)):
                name = self.places[place]
                value = whole.sub(f"{PLACE}/{name}", value)
                used |= {path for path in self.contents if path == name or path.startswith((f"{name}/", f"{name}{_WHEEL}"))}
        return value, used


def carry(
    places: Mapping[Path, Sequence[Path]], readers: Mapping[Path, Collection[str]], stored: Mapping[Path, str] | None = None
) -> Carried:
    """Reads the files to embed. Wheels are embedded unpacked, as packed ones differ in every build.

    Args:
        places: an absolute folder -> files under it, or a file -> itself.
        readers: one of `places` -> nodes that read it; default: all.
        stored: uploaded file -> its reference, embedded instead of its content.

    Raises:
        UserError: a file cannot be read.
    """
    names: dict[str, str] = {}
    contents: dict[str, str] = {}
    for place, files in places.items():
        name = place.name if place.name not in names.values() else f"{len(names)}-{place.name}"
        names[str(place)] = name
        for file in sorted(files):
            target = name if file == place else f"{name}/{file.relative_to(place).as_posix()}"
            try:
                if stored and file in stored:
                    contents[target] = stored[file]
                elif file.suffix == ".whl":
                    with zipfile.ZipFile(file) as wheel:
                        for member in sorted(wheel.namelist()):
                            contents[f"{target}{_WHEEL}{member}"] = _text(wheel.read(member), member)
                else:
                    contents[target] = _text(file.read_bytes(), file.name)
            except OSError as error:
                raise UserError(f"{file}: {error.strerror}") from None
    return Carried(names, contents, {str(k): v for k, v in readers.items()}, {v: k for k, v in (stored or {}).items()})


def is_binary(text: str) -> bool:
    """Returns whether a content is compressed."""
    return bool(_BINARY.match(text))


def packed(text: str) -> str:
    """Returns a parameter's text, compressed where that is much shorter."""
    if len(text) <= _READABLE_PARAMETER and not is_binary(text):
        return text
    short = _packed(text.encode())
    return short if is_binary(text) or len(short) < 0.8 * len(text) else text


def unpacked(text: str) -> str:
    """Returns the original text of `packed`. A text that looks like an uploaded file's reference is returned as it is."""
    return text if is_stored(text) else _bytes(text).decode()


def _text(content: bytes, name: str) -> str:
    if len(content) <= _READABLE.get(Path(name).suffix, _READABLE[""]):
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            return _packed(content)
        if not is_binary(text) and not is_stored(text):
            return text
    return _packed(content)


def _packed(content: bytes) -> str:
    kind, shortest = min(((kind, compress(content)) for kind, compress in _COMPRESS), key=lambda found: len(found[1]))
    return f"{kind}+base85:{base64.b85encode(shortest).decode('ascii').translate(_SAFE)}"


def _bytes(text: str) -> bytes:
    if is_stored(text):
        return fetch(text)
    found = _BINARY.match(text)
    if not found:
        return text.encode()
    return _DECOMPRESS[found[1]](base64.b85decode(text[found.end() :].translate(_BACK)))


def unpack(contents: Mapping[str, str], stored: Mapping[str, Path] | None = None) -> Path:
    """Writes the files below the temporary folder, to a path derived from their content, and returns it.

    Args:
        contents: path -> content as text.
        stored: references of uploaded files that need not be fetched -> the files on this machine.
    """
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:16]
    name = f"switchyard-files-{os.getuid()}"
    folder = own_folder(name)
    if folder is None:  # checked before a folder in it is reused
        raise UserError(
            f"{tempfile.gettempdir()}/{name} belongs to another user or is writable by others, and code in it is run; "
            "remove it, or set TMPDIR to a folder of your own."
        )
    target = folder / digest
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        wheels: dict[Path, dict[str, bytes]] = {}
        for path, text in contents.items():
            content = stored[text].read_bytes() if stored and text in stored else _bytes(text)
            wheel, unpacked, member = path.partition(_WHEEL)
            file = Path(temporary) / "files" / wheel
            file.parent.mkdir(parents=True, exist_ok=True)
            if unpacked:
                wheels.setdefault(file, {})[member] = content
            else:
                file.write_bytes(content)
        for file, members in wheels.items():
            with zipfile.ZipFile(file, "w") as wheel_file:
                for member, content in members.items():
                    wheel_file.writestr(zipfile.ZipInfo(member), content)
        try:
            os.replace(Path(temporary) / "files", target)
        except OSError:  # another task wrote the same path with the same content first
            if not target.exists():
                raise
    return target
