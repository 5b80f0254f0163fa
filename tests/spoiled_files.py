"""Small data files of every format, right ones and spoiled ones, from a seeded generator."""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import json
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

FORMATS = ("csv", "jsonl", "parquet", "tfrecord")
# What stands in a cell where a number or a word is expected.
CELLS: tuple[Any, ...] = (
    *(
        "",
        " ",
        "NA",
        "nan",
        "-inf",
        "1e400",
        "1e39",
        "9" * 19,
        "9" * 40,
        "-" * 30,
        "0x1F",
        "1_000",
        "007",
        "1,5",
        "1.234,5",
        "true",
    ),
    *("2024-01-31", "2024-13-45", "0001-01-01", "9999-12-31T23:59:59.999999999Z", "24:00:00", "09:30:00.123456789", "23:59:60"),
    *("\U0001f600", "é", "\x00", "a\x00b", "\x7f", "\u202e", "\ufeff", '"', "'", "a\nb", "x" * 70_000, "[1, 2]", "{}", "null"),
)
JSON_VALUES: tuple[str, ...] = (
    *(
        "null",
        "true",
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 5000,
        "-0",
        "1.5",
        '"1.5"',
        '""',
        '"\\ud800"',
        '"\\u0000"',
        '"\\udc00x"',
    ),
    *(
        "[]",
        "[[]]",
        "[[[1]]]",
        "{}",
        '{"a": {"a": {"a": []}}}',
        "[null]",
        "[1, null]",
        "[1, true]",
        '[1, "a"]',
        "[1.5, 2]",
        "[{}]",
    ),
    *(
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        '"2024-01-01"',
        '"9" * 3',
        "[" * 3000,
        "[" * 99 + "]" * 99,
    ),
)
BYTES = (
    b"\x00",
    b"\xff",
    b"\xfe",
    b'"',
    b"'",
    b",",
    b"\n",
    b"\r",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\x1a",
)


def spoiled_file(folder: Path, kind: str, rng: random.Random) -> Path:
    """Writes one file of a format, most of them wrong, and returns its path."""
    name, content = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet, "tfrecord": _tfrecord}[kind](rng)
    if rng.random() < 0.1:
        content = gzip.compress(content)
        content = rng.choice((content, content[: rng.randrange(len(content))], _flipped(content, rng)))
        name += rng.choice((".gz", ".bz2", ""))
    elif rng.random() < 0.04:
        name += ".gz"
    if rng.random() < 0.4:
        content = rng.choice((_cut, _flipped, _spliced))(content, rng)
    path = folder / name
    path.write_bytes(content)
    return path


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "n": rng.randrange(1000),
            "f": round(rng.gauss(0, 3), 3),
            "s": rng.choice(("red", "green", "blue")),
            "b": rng.random() < 0.5,
            "d": f"2024-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}",
            "y": int(rng.random() < 0.5),
        }
        for _ in range(rng.choice((1, 2, 60, 60, 60)))
    ]


def _csv(rng: random.Random) -> tuple[str, bytes]:
    rows = [[str(v) for v in row.values()] for row in _rows(rng)]
    lines = [["n", "f", "s", "b", "d", "y"], *rows]
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        line = lines[rng.choice((0, rng.randrange(len(lines))))]
        action = rng.randrange(5)
        place = rng.randrange(len(line)) if line else 0
        if action == 0:
            line[place : place + 1] = [rng.choice(CELLS)]
        elif action == 1:
            line.insert(place, rng.choice((*CELLS, "n")))
        elif action == 2 and line:
            del line[place]
        elif action == 3:
            column, cell = rng.randrange(6), rng.choice(CELLS)
            for each in lines[1:]:
                each[column : column + 1] = [cell] if rng.random() < 0.9 else each[column : column + 1]
        else:
            line[:] = []
    quoted = rng.random() < 0.5
    separator = rng.choice((",",) * 16 + (";", "\t"))
    text = "\n".join(separator.join(_cell(c) if quoted else c for c in line) for line in lines)
    return "data.csv", text.encode(
        rng.choice(("utf-8",) * 20 + ("utf-8-sig", "utf-16", "utf-16-be", "cp1252", "utf-32")), "replace"
    )


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in '",\n') else text


def _jsonl(rng: random.Random) -> tuple[str, bytes]:
    lines = []
    everywhere = (rng.choice("nfsbdy"), rng.choice(JSON_VALUES)) if rng.random() < 0.4 else None
    share = rng.choice((0.02, 0.8, 1.0))
    spoil = rng.choice((0, 0, 0.01))
    for row in _rows(rng):
        parts = {k: json.dumps(v) for k, v in row.items()}
        if everywhere and rng.random() < share:
            parts[everywhere[0]] = everywhere[1]
        if rng.random() < 2 * spoil:
            parts[rng.choice((*"nfsbdy", "", "a\\u0000", "\\ud800", "new"))] = rng.choice(JSON_VALUES)
        if rng.random() < spoil:
            del parts[rng.choice(list(parts))]
        line = "{" + ", ".join(f'"{k}": {v}' for k, v in parts.items()) + "}"
        lines.append(rng.choice(JSON_VALUES) if rng.random() < spoil else line)
    text = "\n".join(lines)
    if rng.random() < 0.05:
        text = f"[{text}]"
    return "data.jsonl", text.encode(rng.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "cp1252")), "replace")


def _arrow_columns(rng: random.Random, n: int) -> list[Callable[[], pa.Array]]:
    """Columns of every kind that a Parquet file may hold, also those that no feature can be."""
    day = datetime.datetime(2024, 1, 31, 9, 30, 0, 123456)
    far = [-(2**63), 2**63 - 1]
    return [
        lambda: pa.array([2**64 - 1, *[1] * (n - 1)], pa.uint64()),
        lambda: pa.array([float("nan"), *[float("inf")] * (n - 1)]),
        lambda: pa.array([1e300] * n),
        lambda: pa.array([b"\xff\xfe\x00", *[b"a"] * (n - 1)], pa.binary()),
        lambda: pa.array([b"\xff\xd8"] * n, pa.binary(2)),
        lambda: pa.array([decimal.Decimal("9" * 38)] * n, pa.decimal128(38, 0)),
        lambda: pa.array([decimal.Decimal("1.5")] * n, pa.decimal128(20, 10)),
        lambda: pa.array([decimal.Decimal("9" * 70)] * n, pa.decimal256(76, 0)),
        lambda: pa.array([rng.choice(far) for _ in range(n)], pa.int64()).cast(pa.timestamp("ns")),
        lambda: pa.array([rng.choice(far) for _ in range(n)], pa.int64()).cast(pa.timestamp("s")),
        lambda: pa.array([rng.choice(far) for _ in range(n)], pa.int64()).cast(pa.timestamp("us", "Europe/Berlin")),
        lambda: pa.array([2**31 - 1, *[-(2**31)] * (n - 1)], pa.int32()).cast(pa.date32()),
        lambda: pa.array([day] * n, pa.timestamp("us", "Asia/Kathmandu")),
        lambda: pa.array([datetime.timedelta(days=1)] * n),
        lambda: pa.array([datetime.time(9, 30, 0, 5)] * n, pa.time64("us")),
        lambda: pa.array([0, *[86_400_000_000_001] * (n - 1)], pa.int64()).cast(pa.time64("ns")),
        lambda: pa.array([{"a": 1}] * n),
        lambda: pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([[1.0, None]] * n),
        lambda: pa.array([[[1]], *[None] * (n - 1)]),
        lambda: pa.array([[], *[None] * (n - 1)], pa.list_(pa.string())),
        lambda: pa.array([[1, 2]] * n, pa.list_(pa.int32(), 2)),
        lambda: pa.array((["a", None] * n)[:n]).dictionary_encode(),
        lambda: pa.array([None] * n),
        lambda: pa.array(([True, None] * n)[:n]),
        lambda: pa.array(["x" * 1_000_000, *["y"] * (n - 1)]),
        lambda: pa.array(["a\x00b"] * n),
    ]


def _parquet(rng: random.Random) -> tuple[str, bytes]:
    table = pa.Table.from_pandas(pd.DataFrame(_rows(rng)), preserve_index=rng.random() < 0.2)
    for _ in range(rng.randrange(3)):
        made = rng.choice(_arrow_columns(rng, table.num_rows))()
        place = rng.randrange(len(table.column_names) + 1)
        if rng.random() < 0.5 and place < len(table.column_names):
            table = table.set_column(place, table.column_names[place], made)
        else:
            table = table.add_column(place, rng.choice(("n", "new", "", "a\x00b", "é", "x" * 3000)), made)
    if rng.random() < 0.1:
        table = table.slice(0, 0)
    out = pa.BufferOutputStream()
    codec = rng.choice(("snappy", "gzip", "zstd", "none"))
    # What a column holds must not decide whether it can be written: the oldest format would refuse some.
    pa.parquet.write_table(table, out, compression=codec, version="2.6", store_schema=rng.random() < 0.8)
    content = out.getvalue().to_pybytes()
    if rng.random() < 0.1:
        content = content[:-8] + struct.pack("<I", rng.randrange(2**31)) + rng.choice((b"PAR1", b"PARE", b"XXXX"))
    return "data.parquet", content


def _tfrecord(rng: random.Random) -> tuple[str, bytes]:
    from tensorflow.train import BytesList, Example, Feature, Features, FloatList, Int64List

    def feature(value: Any) -> Any:
        values = value if isinstance(value, list) else [value]
        if all(isinstance(v, float) for v in values):
            return Feature(float_list=FloatList(value=values))
        if all(isinstance(v, int) for v in values):
            return Feature(int64_list=Int64List(value=values))
        return Feature(bytes_list=BytesList(value=[v if isinstance(v, bytes) else str(v).encode() for v in values]))

    odd: tuple[Any, ...] = (
        b"\xff\xfe",
        b"",
        float("nan"),
        float("inf"),
        -(2**63),
        [1, 2],
        [0.5] * 3,
        [b"a", b"\xff"],
        b"1.5",
        "NA",
    )
    records = []
    column, value = rng.choice(("n", "f", "s", "d", "y", "new")), rng.choice(odd)
    share, spoil = rng.choice((0, 0.02, 0.9, 1.0)), rng.choice((0, 0, 0.01))
    for row in _rows(rng):
        found = {k: feature(v) for k, v in row.items()}
        if rng.random() < share:
            found[column] = feature(value)
        if rng.random() < spoil:
            found[rng.choice(("", "a\x00b", "new"))] = rng.choice((Feature(), feature(rng.choice(odd))))
        record = Example(features=Features(feature=found)).SerializeToString()
        if rng.random() < spoil:
            record = rng.choice((b"", Example().SerializeToString(), b"\x0a\xff\xff", _flipped(record, rng), b"x" * 50))
        records.append(record)
    framed = [r if rng.random() > 0.002 else r[:-1] + bytes([r[-1] ^ 1]) for r in _framed(records)]
    return "data.tfrecord", b"".join(framed)


def _framed(records: list[bytes]) -> list[bytes]:
    """Returns each record with its length and checksums, as TensorFlow writes it."""
    import tensorflow as tf

    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        with tf.io.TFRecordWriter(str(path)) as out:
            for record in records:
                out.write(record)
        content, at = path.read_bytes(), 0
    for record in records:
        found.append(content[at : at + len(record) + 16])
        at += len(record) + 16
    return found


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if found:
            place = rng.randrange(len(found))
            found[place : place + 1] = rng.choice((bytes([rng.randrange(256)]), *BYTES))
    return bytes(found)


def _spliced(content: bytes, rng: random.Random) -> bytes:
    """A stretch of it left out, doubled, or replaced by noise."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    between = rng.choice((b"", content[start:end] * 2, rng.randbytes(end - start), b"\x00" * (end - start)))
    return content[:start] + between + content[end:]


def shown(path: Path) -> str:
    """Returns a file's content for a failure's message, so that it can be made again."""
    content = path.read_bytes()
    return f"{path.name}, {len(content)} bytes: {base64.b64encode(content[:3000]).decode()}"
