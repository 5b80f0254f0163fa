"""A model of every kind of feature that only adds up, and how bodies are decoded for it within a limit of memory."""

import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from switchyard.components.bundle.model import BundleInfo, Ragged, RawFeature
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.readers import READERS
from switchyard.components.serving import invocations, open_inference
from switchyard.components.serving.batcher import Batcher
from switchyard.components.serving.bounds import Bounds, InputError
from switchyard.components.serving.inputs import columns_of
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.rollout import Rollout, StopRule
from switchyard.components.serving.served_model import ServedModel

FEATURES = [
    RawFeature("a", "float32", 1),
    RawFeature("b", "float32", None),
    RawFeature("i", "int64", 1),
    RawFeature("s", "string", 1),
    RawFeature("t", "string", None),
    RawFeature("w", "float32", 3),
    RawFeature("l", "int64", None, is_list=True),
]
INFO = BundleInfo("pytorch", "x:Y", "binary", "label", ["no", "yes"], FEATURES)
WIDE = BundleInfo("pytorch", "x:Y", "binary", "label", ["no", "yes"], [RawFeature(f"c{i}", "float32", None) for i in range(2000)])
GOOD = {"a": 1.5, "i": 1, "s": "x", "w": [1.0, 2.0, 3.0]}


def decode(kind, body, info=INFO, length=None, rows=10_000):
    """Returns the number of rows, or (status, message) of the refusal; kind: infer, json or csv."""
    try:
        bounds = Bounds.of_body(rows, len(body))
        if kind == "infer":
            given = open_inference.decode(body, length, info, bounds).given
        else:
            given = invocations.decode(body, {"json": "application/json", "csv": "text/csv"}[kind], info, bounds)
        return columns_of(info, given, bounds)[1]
    except InputError as error:
        return error.status, str(error)


def read(kind, path):
    """Returns how many rows of a file are read and why others are bad, or the refusal."""
    bad = BadRows(5)
    try:
        return sum(batch.num_rows for batch in READERS[kind](str(path), bad, None)), [s["reason"] for s in bad.samples]
    except UserError as error:
        return str(error)


def _confine(mebibytes):
    # Arrow and orjson set their memory up when they are first used.
    decode("csv", b"a,i,s,w\n1,2,x,y\n")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@contextmanager
def confined(mebibytes):
    """Yields what calls a function in a process of its own that may take so much memory beside its imports."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_confine, initargs=(mebibytes,)) as pool:
        pool.submit(int).result(60)
        yield lambda function, *arguments: pool.submit(function, *arguments).result(60)


def scores(columns):
    total = np.zeros(len(columns["a"]), dtype=np.float32)
    for values in columns.values():
        if not isinstance(values, Ragged) and values.dtype != object:
            total += values.sum(axis=1)
    return 1 / (1 + np.exp(-total[:, np.newaxis]))


def rollout(limits):
    """A champion in this process: the server around it is real, the model is arithmetic."""
    found = Rollout(0.0, StopRule())
    batcher = Batcher(
        scores, max_rows=limits.batch_rows, max_waiting=limits.waiting, observe=Metrics().batch_rows.labels("1").observe
    )
    found.set_champion(ServedModel("1", INFO, batcher, None))
    return found
