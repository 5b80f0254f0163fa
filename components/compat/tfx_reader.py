"""Makes TFX's components read `tf.Example`s with this package's reader instead of record by record in Python.

TFX's components create their own source and have no option for it. Without the patch they read the same rows, but slower
(docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

from switchyard.components.compat.patch import Private

PRIVATE = Private(
    "tfx-bsl",
    ("1.16", "1.21"),
    (
        "tfx_bsl.tfxio.tf_example_record:TFExampleRecord.BeamSource",
        "tfx_bsl.tfxio.tf_example_record:TFExampleRecord.__init__",
        "tfx_bsl.tfxio.tf_example_record:_TFExampleRecordBase._GetSchemaForDecoding",
    ),
    "https://github.com/tensorflow/tfx-bsl/blob/v1.16.1/tfx_bsl/tfxio/tf_example_record.py",
)


def install(read: Callable[[Any, Any, int | None], Any]) -> None:
    """Patches `TFExampleRecord.BeamSource` in this process. Idempotent.

    Args:
        read: creates Beam's source from (file patterns, schema or None, rows per batch or None).
    """
    if TFExampleRecord.BeamSource.__module__ != __name__ and PRIVATE.fits():
        TFExampleRecord.BeamSource = _beam_source(TFExampleRecord.BeamSource, read)


def _beam_source(stock: Any, read: Callable[[Any, Any, int | None], Any]) -> Any:
    def source(self: TFExampleRecord, batch_size: int | None = None) -> Any:
        if self.raw_record_column_name is not None:
            return stock(self, batch_size)
        return read(self._file_pattern, self._GetSchemaForDecoding(), batch_size)

    source.__module__ = __name__
    return source
