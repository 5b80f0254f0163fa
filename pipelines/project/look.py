"""Looks at the data of a new project: its columns, its label and task, as a run infers them, and the template that fits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import ArgumentError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import EMPTY, STRING, ColumnType
from switchyard.components.ingest.config import DataConfig
from switchyard.components.ingest.images import with_images
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.labels import AUTO_CLASSES
from switchyard.components.ingest.scalars import one_a_row
from switchyard.components.ingest.scan import Scan, scan
from switchyard.components.ingest.texts import first_rows
from switchyard.components.tasks import CUSTOM, TASKS
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.cells import is_list
from switchyard.components.values.images import fault
from switchyard.components.values.spelling import INTEGER
from switchyard.components.values.spelling import TEXT as TEXT_VALUES
from switchyard.pipelines.api.class_folders import TEXT_COLUMN, class_folders, header, suitable_shape
from switchyard.pipelines.api.pipeline_argument import named
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import input_spec
from switchyard.pipelines.project import IMAGE, TABULAR, TEXT

# Names by which a label is obvious.
LABELS = ("label", "target", "class", "y")
# What makes a column of texts: words of the mean value, and share of distinct values.
_WORDS, _DISTINCT = 4, 0.5
# Rows that are looked at beyond their types, of pictures fewer.
_ROWS, _PICTURES = 1000, 64
# Rows from which on a column without equal values seems to be an id.
_FEWEST = 50
_MOST_CLASSES, _LONGEST = 8, 64
_NO_LIMIT = 2**62

Declared = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Look:
    """What a look at the data found; texts that end in `_by` say why.

    Attributes:
        name: name of the pipeline.
        data: the section `data` of its YAML as far as it differs from the defaults, without the paths.
        paths: files, folders, globs and URIs of the data, as given, or the file with the pictures or texts of a folder.
        folder: the folder of these pictures or texts, as given; empty for other data.
        columns: feature -> its type in words.
        rows: the rows that were read, in words.
        positive: the positive class of a binary task, if all rows were read.
        template: name of the template that fits.
        texts: columns that the template `text` reads word by word.
        ids: columns that seem to name the row: another value in each.
    """

    name: str
    data: dict[str, Any]
    paths: list[str]
    folder: str
    columns: dict[str, str]
    rows: str
    label: str
    label_by: str
    task: str
    task_by: str
    positive: str
    positive_by: str
    template: str
    template_by: str
    texts: list[str]
    ids: list[str]


def look(
    data: Sequence[str],
    label: str | None = None,
    template: str | None = None,
    overrides: Sequence[str] = (),
    *,
    place: Callable[[str], Path],
    tell: Callable[[str], None],
) -> Look:
    """Reads the first rows of the data.

    Args:
        data: files, folders, globs and URIs; or a folder that holds one of pictures, or of texts, for each class.
        label: the column to predict; None for one with an obvious name.
        template: name of a template; None for the one that fits.
        overrides: texts `KEY=VALUE` with keys of `data`.
        place: see `class_folders`.
        tell: receives what was read from a folder of pictures or texts.

    Raises:
        UserError: the data cannot be read, no label is obvious, or the template does not fit.
    """
    _check_overrides(overrides)
    folders = class_folders(data, label or "class", place, tell)
    begun = _of_table(data, label, template, overrides) if folders is None else _of_folders(folders, template)
    config = _config(begun.document, overrides)
    found = scan(input_spec(config), BadRows(config.data.max_bad_rows), peek=True)
    by_option = label is not None
    label, texts = str(begun.document["label"]), [n for n in begun.texts if n in found.types]
    return Look(
        name=config.name,
        data=_section(config),
        folder=data[0] if folders else "",
        paths=list(begun.document["data"]["path"]),
        columns={n: _described(n, t, found, config, texts) for n, t in found.types.items() if n != label},
        rows=f"the first {found.rows:,} rows" if found.is_partial else f"its {found.rows:,} rows",
        label=label,
        label_by="the folder of each file" if folders else "named by --label" if by_option else "found by its name",
        task=found.task,
        task_by=_task_by(found),
        positive=str(found.classes[-1]) if found.positive_by else "",
        positive_by=found.positive_by,
        template=begun.template,
        template_by=begun.template_by,
        texts=texts,
        ids=[name for name in begun.ids if name in found.types],
    )


@dataclass(frozen=True)
class _Begun:
    """The content of a config with the label and the columns that must be declared; the other attributes as in `Look`."""

    document: Mapping[str, Any]
    template: str
    template_by: str
    texts: Sequence[str] = ()
    ids: Sequence[str] = ()


def _of_folders(document: Mapping[str, Any], template: str | None) -> _Begun:
    texts = "tokenizer" in document
    what, fitting = ("texts", TEXT) if texts else ("pictures", IMAGE)
    if template not in (None, fitting):
        raise ArgumentError("template", f"the data are {what}, received {template}; leave it out")
    # The project has the tokenizer and the networks itself.
    kept = {key: document[key] for key in ("name", "data", "label")}
    return _Begun(kept, fitting, f"a folder of {what} per class", [TEXT_COLUMN] if texts else ())


def _of_table(data: Sequence[str], label: str | None, template: str | None, overrides: Sequence[str]) -> _Begun:
    document = {"data": {"path": list(data)}, "label": label or LABELS[0]}
    spec = replace(input_spec(_config(document, overrides)), label="", task=CUSTOM)
    found = scan(spec, BadRows(_NO_LIMIT), peek=True)
    label = label or _obvious(found.types)
    sample = first_rows(spec.with_folders(), _ROWS)
    features = {n: t for n, t in found.types.items() if n != label}
    pictures = _pictures(features, sample, spec)
    texts = [n for n in _texts(features, sample, every=template == TEXT) if n not in pictures]
    _check_fits(template, pictures, texts)
    fitting, why = _fitting(pictures, texts)
    chosen, why = (template, "by --template") if template else (fitting, why)
    declared = {**_sequences(features, sample), **(pictures if chosen == IMAGE else {})}
    columns = {name: how for name, how in declared.items() if name not in spec.columns}
    document = {"data": {"path": list(data), "columns": columns}, "label": label}
    ids = [n for n in _ids(features, sample) if n not in (*pictures, *texts)]
    return _Begun(document, chosen, why, texts if chosen == TEXT else (), ids)


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not key.startswith("data.") or key == "data.path":
            raise ArgumentError(
                "overrides",
                f"{key} does not decide how DATA is read; give other keys of data, such as data.csv.separator, and edit the "
                "others in the YAML",
            )


def _config(document: Mapping[str, Any], overrides: Sequence[str]) -> PipelineConfig:
    return load_config(None, document=named(document), overrides=overrides)


def _section(config: PipelineConfig) -> dict[str, Any]:
    found = config.data.model_dump(mode="json", exclude_unset=True, exclude={"path"})
    return {key: value for key, value in found.items() if value not in ({}, [], DataConfig.model_fields[key].default)}


def _obvious(columns: Collection[str]) -> str:
    found = [name for name in columns if name.casefold() in LABELS]
    if len(found) != 1:
        raise ArgumentError("label", f"name the column to predict. Columns: {in_a_line(columns)}.")
    return found[0]


def _fitting(pictures: Collection[str], texts: Collection[str]) -> tuple[str, str]:
    """Returns the template that fits, and why."""
    if pictures:
        return IMAGE, f"pictures in {in_a_line(pictures)}"
    if texts:
        return TEXT, f"texts in {in_a_line(texts)}"
    return TABULAR, "no column holds texts of several words, or pictures"


def _check_fits(template: str | None, pictures: Collection[str], texts: Collection[str]) -> None:
    if template == IMAGE and not pictures:
        raise ArgumentError("template", "no column holds PNG or JPEG pictures, or their paths; leave it out, or give other data")
    if template == TEXT and not texts:
        raise ArgumentError("template", "no column holds texts; leave it out, or give other data")


def _pictures(features: Mapping[str, ColumnType], sample: pa.RecordBatch, spec: InputSpec) -> Declared:
    """Returns the columns whose first values all are pictures, or paths or base64 of some, as they are declared."""
    found = {}
    file = next(file for group in spec.files().values() for file in group)
    for name, kind in features.items():
        if kind.kind != STRING or kind.is_list or name not in sample.schema.names:
            continue
        rows = sample.select([name]).filter(sample.column(name).is_valid()).slice(0, _PICTURES)
        values = with_images(rows, [name], file).column(name).to_pylist()
        if values and not any(fault(value, 3, decode=False) for value in values):
            height, width, channels = suitable_shape([header(value) for value in values])
            found[name] = {"type": "image", "size": [height, width], "channels": channels}
    return found


def _texts(features: Mapping[str, ColumnType], sample: pa.RecordBatch, *, every: bool) -> list[str]:
    """Returns the columns of texts of several words, most of them different; of `every` text without one."""
    columns = [n for n, kind in features.items() if kind.kind == STRING and not kind.is_list]
    found = []
    for name in (n for n in columns if n in sample.schema.names):
        values = [value for value in one_a_row(sample.column(name)).to_pylist() if value]
        words = sum(len(value.split()) for value in values)  # of bytes, too, as TFRecord holds texts
        if values and words >= _WORDS * len(values) and len(set(values)) >= _DISTINCT * len(values):
            found.append(name)
    return found or (columns if every else [])


def _ids(features: Mapping[str, ColumnType], sample: pa.RecordBatch) -> list[str]:
    """Returns the columns of texts and integers with another value in each row."""
    named = [n for n, kind in features.items() if kind.meaning in (TEXT_VALUES, INTEGER) and not kind.is_list]
    columns = {n: one_a_row(sample.column(n)) for n in named if n in sample.schema.names}
    return [n for n, values in columns.items() if pc.count_distinct(values).as_py() == len(values) >= _FEWEST]


def _sequences(features: Mapping[str, ColumnType], sample: pa.RecordBatch) -> Declared:
    """Returns the columns of lists of different lengths, which are read only if declared, as they are declared."""
    found = {}
    for name in (n for n, kind in features.items() if kind.is_list and n in sample.schema.names):
        if not is_list(sample.column(name).type):
            continue
        lengths = [n for n in pc.unique(pc.list_value_length(sample.column(name))).to_pylist() if n is not None]
        if len(set(lengths)) > 1:
            found[name] = {"type": "sequence", "length": min(max(lengths), _LONGEST)}
    return found


def _described(name: str, kind: ColumnType, found: Scan, config: PipelineConfig, texts: Collection[str]) -> str:
    declared = config.data.columns.get(name)
    what = "lists, " * kind.is_list + kind.meaning
    if kind.kind == EMPTY:
        what = "no value: no feature"
    elif declared is not None and declared.type in (IMAGE, "sequence"):
        what = declared.type
    elif name in texts:
        what = "text, read word by word"
    missing = found.missing.get(name, 0)
    return what + (f", missing in {missing:,} rows" if missing and kind.kind != EMPTY else "")


def _task_by(found: Scan) -> str:
    counts = found.label_counts
    if not TASKS[found.task].has_classes:
        return f"numbers: fractions, or more than {AUTO_CLASSES} values"
    most = sorted(counts, key=lambda value: -counts[value])[:_MOST_CLASSES]
    rest = ", ..." * (len(most) < len(counts))
    return f"{len(counts):,} values: " + in_a_line(f"{value} ({counts[value]:,} rows)" for value in most) + rest
