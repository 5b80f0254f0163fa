"""Ingest's driver: adds the input's fingerprint to the exec properties, so that changed data invalidates the cache."""

from __future__ import annotations

from typing import Any

from tfx.dsl.components.base import base_driver
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.proto.orchestration import driver_output_pb2

from switchyard.components.ingest.executor import input_spec
from switchyard.components.ingest.images import data_fingerprint


class Driver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Driver that runs before the cache lookup. TFX checks components for the first base and calls the second."""

    def __init__(self, metadata_handle: Any) -> None:
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: Any) -> driver_output_pb2.DriverOutput:
        """Returns the exec properties with `fingerprint` added. Raises UserError for missing input."""
        spec = input_spec(execution_info.exec_properties)
        result = driver_output_pb2.DriverOutput()
        properties = {**execution_info.exec_properties, "fingerprint": data_fingerprint(spec)}
        for key, value in properties.items():
            if value is not None:
                data_types_utils.set_metadata_value(result.exec_properties[key], value)
        return result
