"""Replaces the output format of TFX's Transform, which is otherwise `tf.Example`s.

TFX's executor hard-codes the class of its processor, so the class is patched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tfx.components.transform import executor

from switchyard.components.compat.patch import Private

# Applied to every version of TFX: trainers read the format that is written here.
PRIVATE = Private(
    "tfx",
    ("1.21",),
    (
        "tfx.components.transform.executor:TransformProcessor._EncodeAndWrite",
        "tfx.components.transform.executor:Executor.Do",
    ),
    "https://github.com/tensorflow/tfx/blob/v1.21.0/tfx/components/transform/executor.py",
)


@contextmanager
def written_by(write: Callable[[Any, str], Any]) -> Iterator[None]:
    """Makes TFX's Transform executors in this process write transformed data with `write` while the context is active.

    Args:
        write: maps the schema of the transformed data and the prefix of the files to a Beam transform of record batches.
    """

    class Processor(executor.TransformProcessor):
        def _EncodeAndWrite(self, schema: Any, file_format: str, output_path: str) -> Any:  # noqa: N802 (TFX's name)
            return write(schema, output_path)

    with mock.patch.object(executor, "TransformProcessor", Processor):
        yield
