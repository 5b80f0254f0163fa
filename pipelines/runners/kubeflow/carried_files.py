"""Small local files (the user's code) that travel inside the compiled pipeline: no registry, no bucket, no new image.

They are part of the task's command, hence of its cache key: the same files are the same bytes in every compilation.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from switchyard.components.errors import UserError
from switchyard.components.process.own_folder import own_folder

PLACE = "{{files}}"
# Linux hands a process no argument of more than 128 KiB, and the whole command of a task is one.
LIMIT = 90_000
# Code can be read in the pipeline's source; what else is longer than a page is compressed: the cluster keeps it several times.
_READABLE = {".py": 30_000, "": 2_000}
# Of a parameter, which KFP's pages show: the cluster keeps it eight times.
_READABLE_PARAMETER = 1_000
_DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {"lzma": lzma.decompress, "bz2": bz2.decompress}
_COMPRESS: Sequence[tuple[str, Callable[[bytes], bytes]]] = (
    # Without the frame of .xz, which is as long as a page of text that is compressed; what has no pattern is shorter with it.
    ("lzma", partial(lzma.compress, format=lzma.FORMAT_ALONE, preset=9)),
    ("lzma", lzma.compress),
    ("bz2", bz2.compress),
)
_BINARY = re.compile(r"(lzma|bz2)\+base85:")
# Base 85 without what JSON writes as an escape (Go's: <, > and & too), or what KFP and Argo take for a placeholder.
_SAFE = str.maketrans("&<>{}$", ",./:[]")
_BACK = str.maketrans(",./:[]", "&<>{}$")
_WHEEL = ".unpacked/"


@dataclass(frozen=True)
class Carried:
    """Files and folders of this machine that travel.

    Attributes:
        places: path here -> its name in the task.
        contents: path in the task -> content as text.
        readers: path here -> the nodes that read it; all, where it is not named.
    """

    places: Mapping[str, str]
    contents: Mapping[str, str]
    readers: Mapping[str, Collection[str]]

    def replaced(self, value: str, node: str) -> tuple[str, set[str]]:
        """Returns an exec property of a node fit for a task, and the names of the files that it may need."""
        used: set[str] = set()
        for place in sorted(self.places, key=len, reverse=True):
            whole = re.compile(re.escape(place) + r"(?![\w.-])")
            if whole.search(value) and node in self.readers.get(place, (node,)):
                name = self.places[place]
                value = whole.sub(f"{PLACE}/{name}", value)
                used |= {path for path in self.contents if path == name or path.startswith((f"{name}/", f"{name}{_WHEEL}"))}
        return value, used


def carry(places: Mapping[Path, Sequence[Path]], readers: Mapping[Path, Collection[str]]) -> Carried:
    """Returns files fit to travel. A wheel travels unpacked: packed, it would differ every time.

    Args:
        places: an absolute folder -> files under it, or a file -> itself.
        readers: one of `places` -> the nodes that read it; all, where it is not named.

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
                if file.suffix == ".whl":
                    with zipfile.ZipFile(file) as wheel:
                        for member in sorted(wheel.namelist()):
                            contents[f"{target}{_WHEEL}{member}"] = _text(wheel.read(member), member)
                else:
                    contents[target] = _text(file.read_bytes(), file.name)
            except OSError as error:
                raise UserError(f"{file}: {error.strerror}") from None
    return Carried(names, contents, {str(k): v for k, v in readers.items()})


def is_binary(text: str) -> bool:
    """Returns whether a content is compressed, hence no text to read."""
    return bool(_BINARY.match(text))


def packed(text: str) -> str:
    """Returns a parameter's text, compressed where that is much shorter."""
    if len(text) <= _READABLE_PARAMETER and not is_binary(text):
        return text
    short = _packed(text.encode())
    return short if is_binary(text) or len(short) < 0.8 * len(text) else text


def unpacked(text: str) -> str:
    """Returns what `packed` was given."""
    return _bytes(text).decode()


def _text(content: bytes, name: str) -> str:
    if len(content) <= _READABLE.get(Path(name).suffix, _READABLE[""]):
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return _packed(content)


def _packed(content: bytes) -> str:
    kind, shortest = min(((kind, compress(content)) for kind, compress in _COMPRESS), key=lambda found: len(found[1]))
    return f"{kind}+base85:{base64.b85encode(shortest).decode('ascii').translate(_SAFE)}"


def _bytes(text: str) -> bytes:
    found = _BINARY.match(text)
    if not found:
        return text.encode()
    return _DECOMPRESS[found[1]](base64.b85decode(text[found.end() :].translate(_BACK)))


def unpack(contents: Mapping[str, str]) -> Path:
    """Writes the files below the temporary folder, at a place that their content decides, and returns it."""
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:16]
    name = f"switchyard-files-{os.getuid()}"
    folder = own_folder(name)
    if folder is None:  # before anything in it is taken for what was unpacked earlier
        raise UserError(
            f"{tempfile.gettempdir()}/{name} belongs to somebody else, or others may write to it: what lies there is run. Remove "
            "it, or set TMPDIR to a folder of your own."
        )
    target = folder / digest
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        wheels: dict[Path, dict[str, bytes]] = {}
        for path, text in contents.items():
            content = _bytes(text)
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
        except OSError:  # another task was first: same place, same content
            if not target.exists():
                raise
    return target
