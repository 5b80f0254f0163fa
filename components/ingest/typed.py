"""Converts batches to their columns' types; counts missing cells and collects the spellings of texts on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.column_types import EMPTY, STRING, ColumnType, UnusableColumnError, stored, target
from switchyard.components.values import spelling
from switchyard.components.values.cells import Target, is_list, is_text, plain
from switchyard.components.values.conversion import fit_target

_SHOWN = 10


class MisfitError(UnusableColumnError):
    """Error for a value that does not fit its column's type; `columns_seen.located` adds its file and row."""

    def __init__(self, column: str, reason: str, wanted: Target) -> None:
        def is_bad(values: pa.Array) -> pa.Array:
            rows = {m.row for m in fit_target(values, wanted).misfits}
            return pa.array([i in rows for i in range(len(values))], pa.bool_())

        super().__init__(f"column {column!r} {reason}. Fix it, or exclude it with data.exclude: [{column}].", is_bad)
        self.column = column


class TypedColumns:
    """Converter of batches to list columns, as `tf.Example` stores them.

    Args:
        types: column -> type; columns without any value are dropped.
        missing_values: texts that mean missing, in addition to the usual ones.
        unchecked: columns whose words and spellings are not checked: labels and images.

    Attributes:
        missing: column -> rows without a value.
        counts: timestamp column -> smallest and largest count of its unit.
        bytes_columns: text columns with a value that is not UTF-8.
        broken_lines: text column -> values with a line break.
        spelled: text column -> styles of numbers, booleans and dates in it, see `spelling.styles`.
    """

    def __init__(self, types: Mapping[str, ColumnType], missing_values: Iterable[str], unchecked: Collection[str]) -> None:
        self._types = {n: t for n, t in types.items() if t.kind != EMPTY}
        self._targets = {n: target(t, missing_values) for n, t in self._types.items()}
        self._unchecked = set(unchecked)
        self.missing = dict.fromkeys(self._types, 0)
        self.counts: dict[str, list[int]] = {}
        self.bytes_columns: set[str] = set()
        self.broken_lines: Counter[str] = Counter()
        self.spelled: defaultdict[str, set[str]] = defaultdict(set)
        self._rendered: defaultdict[str, set[str]] = defaultdict(set)
        self._taken: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._kept: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns a batch's columns converted to their types.

        Raises:
            MisfitError: a value does not fit.
        """
        arrays = []
        there = set(batch.schema.names)
        for name, wanted in self._targets.items():
            column = batch.column(name) if name in there else pa.nulls(batch.num_rows)
            found = fit_target(column, wanted)
            if found.misfits:
                raise MisfitError(name, found.misfits[0].reason, wanted)
            self.missing[name] += found.values.null_count
            self._taken[name].update(found.words)
            if wanted.kind == spelling.TIMESTAMP and len(found.values.values):
                seen = pc.min_max(found.values.values).as_py()
                low, high = self.counts.get(name, (seen["min"], seen["max"]))
                self.counts[name] = [min(low, seen["min"]), max(high, seen["max"])]
            if self._types[name].kind == STRING and name not in self._unchecked:
                self._look_at(name, column, found.values, in_lists=wanted.is_list)
            arrays.append(stored(found))
        return pa.RecordBatch.from_arrays(arrays, names=list(self._targets))

    def _look_at(self, name: str, column: pa.Array, values: pa.Array, *, in_lists: bool) -> None:
        column = plain(column.flatten() if is_list(column.type) else column)
        if not is_text(column.type):
            self._rendered[name] |= _styles(values.flatten())
            return
        texts = values.flatten()
        try:
            self.spelled[name] |= _styles(texts)
        except pa.ArrowInvalid:
            self.bytes_columns.add(name)
        self.broken_lines[name] += pc.sum(pc.match_substring_regex(texts, "[\r\n]")).as_py() or 0
        if in_lists:
            return  # lists have no missing elements
        words = spelling.words(()).cast(pa.binary())
        counted = pc.value_counts(texts.filter(pc.is_in(texts, words)))
        for word, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
            self._kept[name][word.decode()] += count

    def check(self) -> None:
        """Merges the spellings of texts and of values rendered as text.

        Raises:
            UserError: a value could be spelled in two ways.
        """
        for name, styles in self._rendered.items():
            if clash := spelling.clash(styles, self.spelled[name]):
                raise UserError(
                    f"data: column {name!r} is text: {clash[0]} has another type in some rows and is a text such as {clash[1]} "
                    "in others, so that one value could appear as two. Write it as one type in all files, or leave it out with "
                    f"data.exclude: [{name}]."
                )
            self.spelled[name] |= styles

    def notes(self) -> list[str]:
        """Returns notes on words that mean missing elsewhere, missing cells and bytes, one per column."""
        lines = [
            f"{name}: {_counted(words)}: treated as a value; data.missing_values: [{', '.join(words)}] treats it as missing"
            for name, words in self._kept.items()
            if words
        ]
        lines += [f"{name}: {_counted(words)}: treated as missing" for name, words in self._taken.items() if words]
        lines += [
            f"{name}: holds bytes that are not UTF-8, so it is a bytes column; /invocations accepts it as base64 only"
            for name in sorted(self.bytes_columns)
        ]
        more = len(lines) - _SHOWN
        return [*lines[:_SHOWN], *([f"and {more} more columns with such words"] if more > 0 else [])]


def _counted(words: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count:,} cell{'s are' if count > 1 else ' is'} {f'the text {word}' if word else 'blank'}"
        for word, count in words.items()
    )


def _styles(texts: pa.Array) -> set[str]:
    """Returns the styles of texts. Raises ArrowInvalid for bytes that are not UTF-8."""
    distinct: Collection[bytes] = pc.unique(texts).cast(pa.string())
    return spelling.styles(distinct)
