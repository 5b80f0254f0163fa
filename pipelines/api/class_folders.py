"""Pictures or texts in a folder per class, `pets/cats/1.png`, as the data of a pipeline without a YAML."""

from __future__ import annotations

import io
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchyard.components.errors import UserError
from switchyard.components.ingest.sources import ENDINGS, list_files
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.images import FORMATS, MOST_BYTES, fault
from switchyard.pipelines.config.data_name import name_of
from switchyard.pipelines.config.document import is_text
from switchyard.pipelines.workspace import Workspace, default_workspace

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN, TEXT_COLUMN = "image", "text"
PICTURES, TEXTS = (".png", ".jpg", ".jpeg"), (".txt",)
# The networks of `switchyard init` that read texts, and their sizes.
_TEMPLATE = Path(__file__).parents[1] / "project" / "templates" / "text"
TEXT_PARAMETERS: dict[str, Any] = {"width": 16, "filters": 32, "dropout": 0.25}
_EXAMPLES = {
    "pictures": "cats/1.png, or list paths and classes in a CSV and declare its column",
    "texts": "good/1.txt, or write texts and classes as columns of a file and set tokenizer",
}
# Width, height and Pillow's mode.
Header = tuple[int, int, str]
# Height and width that pictures are resized to, unless most of them are smaller.
_SIDE = 64
_ROWS = 64
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "eval", "dev", "test", "testing"})


def class_folders(
    data: Sequence[str], label: str, place: Callable[[str], Path], tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Returns the pipeline of a folder of pictures or of texts, whose classes are the folders in it; None for any other data.

    They are copied into one Parquet file: the columns `image` or `text`, and the label. Texts are read word by word by the
    tokenizer and the networks of the template `text` of `switchyard init`.

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
    pictures, texts = (sum(endings[ending] for ending in kind) for kind in (PICTURES, TEXTS))
    if pictures and texts:
        raise UserError(
            f"--data: {folder} holds {pictures:,} pictures and {texts:,} texts (.txt), and its files must be of one kind; move "
            "the others away, or write a file with a column of each (docs/text.md)"
        )
    if not pictures and not texts:
        return None
    what, kind, column = ("texts", TEXTS, TEXT_COLUMN) if texts else ("pictures", PICTURES, COLUMN)
    chosen = [file for file in files if file.suffix.lower() in kind]
    classes = _classes(folder, chosen, what)
    if label == column:
        raise UserError(f"--label: the {what} are the column {column!r}; name the label otherwise, for example class")
    if other := [file.name for file in files if file.suffix.lower() not in kind]:
        skipped = f"{len(other):,} of {len(files):,} files, no {what} ({', '.join(kind)})"
        tell(f"warning: skipped {skipped}: {in_a_line(other[:5])}")
    if empty := [os.path.basename(f) for f in listing.skipped if f.lower().endswith(kind) and not _has_bytes(f)]:
        tell(f"warning: skipped {len(empty):,} {what} without a byte, or links that lead nowhere: {in_a_line(empty[:5])}")
    name = name_of(data)
    target = place(name)
    counts = in_a_line([f"{of} {count:,}" for of, count in sorted(Counter(classes).items())[:10]])
    # Folders may be called like a number or a missing value.
    columns: dict[str, Any] = {label: {"type": "text"}}
    document = {"name": name, "data": {"path": [str(target)], "columns": columns}, "label": label}
    if texts:
        _write(chosen, classes, label, target, TEXT_COLUMN, _texts)
        tell(f"{len(chosen):,} texts, the column {TEXT_COLUMN!r}: {counts}")
        columns[TEXT_COLUMN] = {"type": "text"}
        return document | _text_network()
    headers: list[Header] = []
    _write(chosen, classes, label, target, COLUMN, partial(_pictures, headers))
    shape = suitable_shape(headers)
    tell(f"{len(chosen):,} pictures, resized to {shape[0]} x {shape[1]} (data.columns.{COLUMN}.size): {counts}")
    columns[COLUMN] = {"type": "image", "size": list(shape[:2]), "channels": shape[2]}
    return document


def _text_network() -> dict[str, Any]:
    """Returns the sections of a pipeline whose tokenizer and networks read the words of the column of texts."""
    return {
        "tokenizer": {"code": str(_TEMPLATE / "tokenizer.py"), "columns": [TEXT_COLUMN]},
        "trainer": {
            "model": {"tensorflow": str(_TEMPLATE / "keras_model.py"), "pytorch": str(_TEMPLATE / "torch_model.py")},
            "model_parameters": TEXT_PARAMETERS,
        },
    }


def in_workspace(workspace: Path | None, name: str) -> Path:
    """Returns the path of a Parquet file with pictures or texts in a workspace, None for the default one, which is created."""
    place = Workspace((workspace if workspace is not None else default_workspace(None)).resolve())
    place.create()
    return place.root / "data" / f"{name}.parquet"


def _has_bytes(file: str) -> bool:
    return os.path.exists(file) and os.path.getsize(file) > 0


def _classes(folder: Path, files: Sequence[Path], what: str) -> list[str]:
    """Returns the class of each file, the folder in `folder` that it is in; `what` names the files."""
    below = [file.relative_to(folder).parts for file in files]
    if loose := [parts[0] for parts in below if len(parts) == 1]:
        raise UserError(
            f"--data: {folder} holds {what} without a class ({in_a_line(loose[:3])}); move each into a folder with the name of "
            f"its class, {_EXAMPLES[what]} (docs/text.md)"
        )
    classes = [parts[0] for parts in below]
    found = sorted(set(classes))
    if wrong := [name for name in found if not is_text(name)]:
        raise UserError(f"--data: the name of the folder {wrong[0]!r} is not UTF-8 text; rename it")
    places: dict[str, Path] = {}
    for file in files:
        if (first := places.setdefault(os.path.realpath(file), file)) != file:
            raise UserError(f"--data: {first} and {file} are one file, by a link; remove the link")
    if len(found) < 2:
        raise UserError(f"--data: {folder} holds one folder of {what}, {found[0]!r}; there must be one for each of two classes")
    if {name.lower() for name in found} <= _SPLITS:
        raise UserError(
            f"--data: the folders of {folder} are splits ({in_a_line(found)}), not classes; give a folder whose folders are the "
            "classes, of which the pipeline makes the splits"
        )
    return classes


def _write(
    files: Sequence[Path],
    classes: Sequence[str],
    label: str,
    target: Path,
    column: str,
    read: Callable[[Sequence[Path]], pa.Array],
) -> None:
    """Writes files, as `read` returns some of them, and their classes as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(column, read([]).type), (label, pa.string())])
    new = target.with_suffix(f".{os.getpid()}")
    try:
        with pq.ParquetWriter(new, schema) as writer:
            for start in range(0, len(files), _ROWS):
                part = read(files[start : start + _ROWS])
                writer.write_table(pa.table([part, list(classes[start : start + _ROWS])], schema=schema))
        new.replace(target)
    finally:
        with suppress(FileNotFoundError):
            new.unlink()


def _pictures(headers: list[Header], files: Sequence[Path]) -> pa.Array:
    """Returns pictures, binary, and appends their headers. Raises UserError for a file that is none."""
    import pyarrow as pa

    images = [_read(file) for file in files]
    headers += _headers(files, images)
    return pa.array(images, pa.binary())


def _texts(files: Sequence[Path]) -> pa.Array:
    """Returns texts, string. Raises UserError for a file that is no UTF-8, or too large."""
    import pyarrow as pa

    return pa.array([_text(file) for file in files], pa.string())


def _text(file: Path) -> str:
    content = _read(file)
    if len(content) > MOST_BYTES:
        raise UserError(f"--data: {file} is larger than {MOST_BYTES >> 20} MiB; shorten it: a model reads the first words")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--data: {file} is not UTF-8 text: byte {content[error.start]:#04x} at offset {error.start}; convert it (iconv -f "
            "latin1 -t utf-8), or remove it"
        ) from None


def suitable_shape(headers: Sequence[Header]) -> tuple[int, int, int]:
    """Returns the height, width and channels that suit most pictures, of which width, height and Pillow's mode are given."""
    width, height = (min(_SIDE, int(statistics.median(side))) for side in list(zip(*headers, strict=True))[:2])
    return height, width, 1 if all(mode in ("L", "1", "I;16") for _, _, mode in headers) else 3


def _read(file: Path) -> bytes:
    """Returns the bytes of a file; of a larger one as many as tell that it is too large."""
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES + 1)


def _headers(files: Sequence[Path], images: Sequence[bytes]) -> Iterator[Header]:
    """Yields width, height and mode of pictures. Raises UserError for a file that is none."""
    for file, content in zip(files, images, strict=True):
        if wrong := fault(content, 3, decode=False):
            raise UserError(f"--data: {file} {wrong}; remove the file, or repair it")
        yield header(content)


def header(picture: bytes) -> Header:
    """Returns width, height and Pillow's mode of an encoded picture."""
    from PIL import Image

    with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
        return *image.size, image.mode
