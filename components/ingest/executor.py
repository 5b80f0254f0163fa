"""Ingest's executor: scans and checks the input, then writes the splits."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from switchyard.components.data.row_keys import save_row_keys
from switchyard.components.data.summary import EVAL, TEST, TRAIN, DatasetSummary
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.batch_size import parts_of
from switchyard.components.ingest.column_types import EMPTY, FLOAT, INTEGER
from switchyard.components.ingest.columns_seen import located, reads_texts
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.keys import key_hashes
from switchyard.components.ingest.labels import ZERO_OR_ONE, class_column, zero_or_one
from switchyard.components.ingest.scan import Scan, read_batches, scan
from switchyard.components.ingest.typed import MisfitError, TypedColumns
from switchyard.components.ingest.windowed import Windowed, windowed
from switchyard.components.ingest.writer import SplitWriter, assign, row_hashes, take
from switchyard.components.progress import say, warn
from switchyard.components.text.visible import in_a_line

_INPUT = TypeAdapter(InputSpec)


def input_spec(exec_properties: dict[str, Any]) -> InputSpec:
    """Returns the InputSpec of a node's exec properties."""
    return _INPUT.validate_json(exec_properties["input"])


class Executor(base_executor.BaseExecutor):
    """Executor that reads `input` (JSON of an InputSpec) and writes `examples`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class. Raises UserError for any problem with the data."""
        given = input_spec(exec_properties).with_folders()
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        bad = BadRows(given.max_bad_rows)
        with windowed(given, bad) as read:
            self._ingest(given, read, bad, examples, exec_properties["fingerprint"])

    def _ingest(self, given: InputSpec, read: Windowed, bad: BadRows, examples: Any, fingerprint: str) -> None:
        """Scans what is read, writes the splits and their summary; `given` is the input as configured."""
        found = scan(read.spec, bad)
        spec = replace(read.spec, targets=found.targets)  # listed classes are known from here on
        splits = list(spec.split_paths or spec.weights)
        typed = TypedColumns(found.types, spec.missing_values or (), (*spec.labels, *spec.images))
        written = _write(spec, found, typed, examples.uri, splits, bad)
        rows = written.rows
        typed.check()
        for split in [s for s in (TRAIN, EVAL, TEST) if s in rows]:
            if not rows[split]:
                raise UserError(
                    f"data.splits: the split {split!r} has no rows ({sum(rows.values())} rows in all). "
                    "Give more data or another weight."
                )
        empty = [n for n, t in found.types.items() if t.kind == EMPTY]
        if empty:
            warn(f"skipped columns without any value: {in_a_line(empty)}")
        for note in dict.fromkeys([*read.notes, *found.notes, *typed.notes()]):
            warn(note)
        if found.missing_keys:
            warn(
                f"data.split_key: {found.missing_keys:,} of {found.rows:,} rows have no {spec.split_key}: "
                "each forms its own group"
            )
        if bad.count:
            warn(f"{bad.count} bad rows are skipped (data.max_bad_rows: {bad.limit})")
        examples.split_names = artifact_utils.encode_split_names(splits)
        examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
        summary = DatasetSummary(
            fingerprint=fingerprint,
            files=[f for group in given.files().values() for f in group],
            columns={n: f"{'list of ' * t.is_list}{t.kind}" for n, t in found.types.items() if t.kind != EMPTY},
            missing=typed.missing,
            rows=rows,
            bad_rows=bad.count,
            bad_row_samples=bad.samples,
            empty_columns=empty,
            label=spec.label,
            task=found.task,
            classes=found.classes,
            class_counts={str(c): written.classes.get(c, 0) for c in found.classes},
            positive_by=found.positive_by,
            meanings={n: t.meaning for n, t in found.types.items() if t.kind != EMPTY},
            spelled={n: sorted(styles) for n, styles in typed.spelled.items() if styles},
            missing_values=list(spec.missing_values or ()),
            counts=typed.counts,
            broken_lines={name: count for name, count in typed.broken_lines.items() if count},
            csv=dict(given.csv),
            keys=written.keys if read.keys is None else read.keys,
            windows=read.known.as_dict() if read.known else None,
            bytes_columns=sorted({*typed.bytes_columns, *spec.images}),
            sequences={n: dict(how) for n, how in spec.sequences.items() if found.types[n].kind != EMPTY},
            images={name: list(shape) for name, shape in spec.images.items()},
            source=given.patterns,
            targets=list(spec.targets),
            label_separator=spec.label_separator,
            output_shape=list(spec.output_shape),
            label_shape=found.label_shape,
            group=spec.group,
            sample_weight=spec.sample_weight or "",
            split_key="" if spec.group else spec.split_key or "",
        )
        summary.save(examples.uri)
        if summary.split_key:
            save_row_keys(examples.uri, np.concatenate(written.held_out_keys[summary.held_out]))


@dataclass(frozen=True)
class _Written:
    """Rows per split; for the training split also the rows per class and the number of distinct split keys.

    With a split key, `held_out_keys` has the hash of the key of each row of the other splits, by batch, uint64.
    """

    rows: dict[str, int]
    classes: Counter[Any]
    keys: int | None
    held_out_keys: dict[str, list[np.ndarray]]


def _write(spec: InputSpec, found: Scan, typed: TypedColumns, uri: str, splits: list[str], bad: BadRows) -> _Written:
    writers = {s: SplitWriter(uri, s) for s in splits}
    counts: Counter[Any] = Counter()
    keys = np.array([], dtype=np.uint64)
    held_out: dict[str, list[np.ndarray]] = {s: [] for s in splits if s != TRAIN}
    done = 0
    numeric = {n for n, t in found.types.items() if t.kind in (INTEGER, FLOAT)}
    numeric |= {n for n in spec.labels if n not in spec.columns}  # parsed as in the first pass, even in a mixed column
    again = BadRows(limit=0)  # already counted in the first pass
    for group, files in spec.files().items():
        for file in files:
            # The first pass decoded all images: without a bad row their headers alone are checked again.
            batches = read_batches(spec, file, again, numeric=numeric, decode=bad.count > 0)
            read = _with_classes(batches, spec, found, file)
            for batch, lists, records in _encoded(read, spec, typed, file):
                if group is not None:
                    chosen = {group: None}
                else:
                    hashes = row_hashes(_features(lists, (*spec.labels, spec.sample_weight)))
                    if spec.split_key:
                        hashes = key_hashes(batch.column(spec.split_key), hashes, spec.missing_values or ())
                    index = assign(hashes, spec.weights)
                    chosen = {s: index == i for i, s in enumerate(splits)}
                    if spec.split_key:
                        keys = np.union1d(keys, hashes[chosen["train"]])
                        for split, of_split in held_out.items():
                            of_split.append(hashes[chosen[split]])
                for split, mask in chosen.items():
                    writers[split].write(records if mask is None else take(records, mask))
                if found.classes and "train" in chosen:
                    mask = chosen["train"]
                    labels = lists.column(spec.label) if mask is None else lists.column(spec.label).filter(pa.array(mask))
                    counts.update(v.decode() if isinstance(v, bytes) else v for v in labels.flatten().to_pylist())
                done += batch.num_rows
                say(f"{done:,} of {found.rows:,} rows written")
    for writer in writers.values():
        writer.close()
    return _Written({s: w.rows for s, w in writers.items()}, counts, len(keys) if len(keys) else None, held_out)


def _features(lists: pa.RecordBatch, others: Collection[str | None]) -> pa.RecordBatch:
    """Returns the columns except label and weight, so that a corrected label or weight never moves a row to another split."""
    return lists.select([n for n in lists.schema.names if n not in others])


def _encoded(
    batches: Iterator[pa.RecordBatch], spec: InputSpec, typed: TypedColumns, file: str
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, pa.Array]]:
    """Yields each batch with its typed columns and its serialized `tf.Example`s.

    Encoding releases the GIL: the next batch is encoded on another core while this one is written.
    """
    encoder = RecordBatchToExamplesEncoder()
    with ThreadPoolExecutor(1, thread_name_prefix="encode") as pool:
        ahead: deque[tuple[pa.RecordBatch, pa.RecordBatch, Future[pa.Array]]] = deque()
        # Typed batches have the columns of all files, so they are split to stay within the bounds.
        for batch in (part for read in batches for part in parts_of(read, len(typed.missing))):
            try:
                lists = typed.convert(batch)
            except MisfitError as error:
                raise located(spec, file, error.column, error) from None
            ahead.append((batch, lists, pool.submit(encoder.encode, lists)))
            if len(ahead) > 1:
                first, columns, records = ahead.popleft()
                yield first, columns, records.result()
        while ahead:
            first, columns, records = ahead.popleft()
            yield first, columns, records.result()


def _with_classes(batches: Iterator[pa.RecordBatch], spec: InputSpec, found: Scan, file: str) -> Iterator[pa.RecordBatch]:
    """Yields the batches with the labels' values replaced by the exact class values, whatever the file's type."""
    classes = ZERO_OR_ONE if zero_or_one(found.task) else found.classes
    for batch in batches:
        exact = batch
        for name in spec.labels if classes else ():
            place = batch.schema.get_field_index(name)
            label = class_column(batch.column(place), classes, untyped=reads_texts(spec, file, batch.schema.field(place)))
            if label.null_count:
                # Unlabelled rows are dropped earlier, so an unknown class means that the file changed between the passes.
                value = batch.column(place).filter(label.is_null())[0].as_py()
                raise UserError(
                    f"label: {file}: {value!r} is not one of the classes {list(classes[:10])}: the file changed during the run. "
                    "Run again."
                )
            exact = exact.set_column(place, name, label)
        yield exact
