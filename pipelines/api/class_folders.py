"""Pictures in a folder per class, `pets/cats/1.png`, as the data of a pipeline without a YAML."""

from __future__ import annotations

import io
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.ingest.sources import ENDINGS, list_files
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.images import FORMATS, MOST_BYTES, fault
from switchyard.pipelines.config.data_name import name_of
from switchyard.pipelines.config.document import is_text
from switchyard.pipelines.workspace import Workspace, default_workspace

COLUMN = "image"
PICTURES, TEXTS = (".png", ".jpg", ".jpeg"), (".txt",)
# Height and width that pictures are resized to, unless most of them are smaller.
_SIDE = 64
_ROWS = 64
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "eval", "dev", "test", "testing"})


def class_folders(
    data: Sequence[str], label: str, place: Callable[[str], Path], tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Returns the pipeline of a folder of pictures, whose classes are the folders in it; None for any other data.

    The pictures are copied into one Parquet file: the columns `image` and the label.

    Args:
        data: what `--data` names.
        label: name of the label.
        place: returns the path of the Parquet file for the pipeline's name; its folder need not exist.
        tell: receives what was read and what was skipped.

    Raises:
        UserError: the folder holds pictures or texts in another layout.
    """
    if len(data) != 1 or not os.path.isdir(data[0]):
        return None
    folder = Path(data[0])
    listing = list_files(data, "--data")
    files = [Path(file) for file in listing.files]
    endings = Counter(file.suffix.lower() for file in files)
    if any(ending in ENDINGS or ending in (".gz", ".bz2") for ending in endings):
        return None
    if texts := sum(endings[ending] for ending in TEXTS):
        raise UserError(
            f"--data: {folder} holds texts ({texts:,} .txt), and rows are read from CSV, Parquet, JSON Lines or TFRecord; write "
            f"a column with the texts and the column {label!r} into one, and set tokenizer (docs/text.md)"
        )
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    if not pictures:
        return None
    classes = _classes(folder, pictures)
    if label == COLUMN:
        raise UserError(f"--label: the pictures are the column {COLUMN!r}; name the label otherwise, for example class")
    if other := [file.name for file in files if file.suffix.lower() not in PICTURES]:
        skipped = f"{len(other):,} of {len(files):,} files, no pictures ({', '.join(PICTURES)})"
        tell(f"warning: skipped {skipped}: {in_a_line(other[:5])}")
    if empty := [os.path.basename(f) for f in listing.skipped if f.lower().endswith(PICTURES) and not _has_bytes(f)]:
        tell(f"warning: skipped {len(empty):,} pictures without a byte, or links that lead nowhere: {in_a_line(empty[:5])}")
    name = name_of(data)
    target = place(name)
    shape = _write(pictures, classes, label, target)
    counts = in_a_line([f"{of} {count:,}" for of, count in sorted(Counter(classes).items())[:10]])
    tell(f"{len(pictures):,} pictures, resized to {shape[0]} x {shape[1]} (data.columns.{COLUMN}.size): {counts}")
    # Folders may be called like a number or a missing value.
    columns = {COLUMN: {"type": "image", "size": list(shape[:2]), "channels": shape[2]}, label: {"type": "text"}}
    return {"name": name, "data": {"path": [str(target)], "columns": columns}, "label": label}


def in_workspace(workspace: Path | None, name: str) -> Path:
    """Returns the path of a Parquet file with pictures in a workspace, None for the default one, which is created."""
    place = Workspace((workspace if workspace is not None else default_workspace(None)).resolve())
    place.create()
    return place.root / "data" / f"{name}.parquet"


def _has_bytes(file: str) -> bool:
    return os.path.exists(file) and os.path.getsize(file) > 0


def _classes(folder: Path, pictures: Sequence[Path]) -> list[str]:
    """Returns the class of each picture, the folder in `folder` that it is in."""
    below = [picture.relative_to(folder).parts for picture in pictures]
    if loose := [parts[0] for parts in below if len(parts) == 1]:
        raise UserError(
            f"--data: {folder} holds pictures without a class ({in_a_line(loose[:3])}); move each into a folder with the name of "
            "its class, cats/1.png, or list paths and classes in a CSV and declare its column (docs/text.md)"
        )
    classes = [parts[0] for parts in below]
    found = sorted(set(classes))
    if wrong := [name for name in found if not is_text(name)]:
        raise UserError(f"--data: the name of the folder {wrong[0]!r} is not UTF-8 text; rename it")
    places: dict[str, Path] = {}
    for picture in pictures:
        if (first := places.setdefault(os.path.realpath(picture), picture)) != picture:
            raise UserError(f"--data: {first} and {picture} are one picture, by a link; remove the link")
    if len(found) < 2:
        raise UserError(f"--data: {folder} holds one folder of pictures, {found[0]!r}; there must be one for each of two classes")
    if {name.lower() for name in found} <= _SPLITS:
        raise UserError(
            f"--data: the folders of {folder} are splits ({in_a_line(found)}), not classes; give a folder whose folders are the "
            "classes, of which the pipeline makes the splits"
        )
    return classes


def _write(pictures: Sequence[Path], classes: Sequence[str], label: str, target: Path) -> tuple[int, int, int]:
    """Writes pictures and classes as Parquet; returns the height, width and channels that suit most of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(COLUMN, pa.binary()), (label, pa.string())])
    headers: list[tuple[int, int, str]] = []
    new = target.with_suffix(f".{os.getpid()}")
    try:
        with pq.ParquetWriter(new, schema) as writer:
            for start in range(0, len(pictures), _ROWS):
                part = pictures[start : start + _ROWS]
                images = [_read(picture) for picture in part]
                headers += _headers(part, images)
                writer.write_table(pa.table([images, list(classes[start : start + _ROWS])], schema=schema))
        new.replace(target)
    finally:
        with suppress(FileNotFoundError):
            new.unlink()
    return suitable_shape(headers)


def suitable_shape(headers: Sequence[tuple[int, int, str]]) -> tuple[int, int, int]:
    """Returns the height, width and channels that suit most pictures, of which width, height and Pillow's mode are given."""
    width, height = (min(_SIDE, int(statistics.median(side))) for side in list(zip(*headers, strict=True))[:2])
    return height, width, 1 if all(mode in ("L", "1", "I;16") for _, _, mode in headers) else 3


def _read(file: Path) -> bytes:
    """Returns the bytes of a picture; of a larger file as many as tell that it is too large."""
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES + 1)


def _headers(files: Sequence[Path], images: Sequence[bytes]) -> Iterator[tuple[int, int, str]]:
    """Yields width, height and mode of pictures. Raises UserError for a file that is none."""
    for file, content in zip(files, images, strict=True):
        if wrong := fault(content, 3, decode=False):
            raise UserError(f"--data: {file} {wrong}; remove the file, or repair it")
        yield header(content)


def header(picture: bytes) -> tuple[int, int, str]:
    """Returns width, height and Pillow's mode of an encoded picture."""
    from PIL import Image

    with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
        return *image.size, image.mode
