"""TFX's Transform writes `tf.Example`s; with the patch what it has transformed is written as its caller says.

TFX's executor names the class of its processor itself: there is no way to hand it another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tfx.components.transform import executor

from switchyard.components.compat.patch import Private

# Not left out for other versions: trainers read what is written here.
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
    """Has TFX's Transform executors of this process write what they have transformed as `write` says.

    Args:
        write: from the schema of the transformed data and the prefix of the files to a Beam transform of record batches.
    """

    class Processor(executor.TransformProcessor):
        def _EncodeAndWrite(self, schema: Any, file_format: str, output_path: str) -> Any:  # noqa: N802 (TFX's name)
            return write(schema, output_path)

    with mock.patch.object(executor, "TransformProcessor", Processor):
        yield
