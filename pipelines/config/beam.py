"""The config's `beam` section: the engine of the Beam stages (statistics, transform, evaluation)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt, field_validator, model_validator

from switchyard.components.config import LARGEST, Section

# Beam's DirectRunner falls back to this runner; naming it keeps Beam from trying to download another one first.
_DIRECT = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
FLINK = "FlinkRunner"
_SPARK, _PORTABLE, _DATAFLOW = "SparkRunner", "PortableRunner", "DataflowRunner"
_NAMES = {"direct": _DIRECT, "flink": FLINK, "spark": _SPARK, "portable": _PORTABLE, "dataflow": _DATAFLOW}
# Environment types without a container image, and the options that define the workers' content.
_NO_IMAGE = ("LOOPBACK", "EXTERNAL", "PROCESS")
_MADE_OF = ("sdk_container_image", "worker_harness_container_image", "setup_file", "requirements_file", "extra_package")
_LOCAL = ("[local]", "[auto]")


class BeamConfig(Section):
    """The engine of all Beam stages: statistics, transform, evaluation.

    Attributes:
        runner: `direct` (in the stage's own process), `FlinkRunner`, `SparkRunner`, `DataflowRunner`, `PortableRunner` (short:
            `flink`, `spark`, ...), or any other Beam runner.
        options: options of the runner, without leading dashes.
        in_memory_limit: statistics and evaluation of up to this many MiB of examples are computed without a Beam pipeline, in
            the stage's own process: the same results in a fraction of the time. 0: never. Other runners than `direct` ignore it.
    """

    runner: str = "direct"
    options: dict[str, str | bool | int | float | tuple[str, ...]] = Field(default_factory=dict)
    in_memory_limit: Annotated[StrictInt, Field(ge=0, le=LARGEST)] = 256

    @field_validator("options")
    @classmethod
    def _no_dashes(cls, options: dict[str, object]) -> dict[str, object]:
        for name in options:
            if name.startswith("-"):
                raise ValueError(f"{name!r}: names have no leading dashes; write {name.lstrip('-')!r}")
        return options

    @model_validator(mode="after")
    def _check(self) -> BeamConfig:
        if self._runner == _SPARK and not self._has("job_endpoint", "spark_job_server_jar"):
            raise ValueError(
                "options: SparkRunner needs job_endpoint (the address of a running Spark job server) or spark_job_server_jar; "
                "without them Beam would download one during the run"
            )
        if self._runner == _PORTABLE and not self._has("job_endpoint"):
            raise ValueError("options: PortableRunner needs job_endpoint, the address of a Beam job server as host:port")
        return self

    @property
    def needs_job_server(self) -> bool:
        """Whether a Flink job server is needed and none is configured."""
        return self._runner == FLINK and not self._has("job_endpoint", "flink_submit_uber_jar")

    @property
    def flink_master(self) -> str:
        """Flink's address: `host:port` of its REST API, or `[auto]`, a small Flink inside the job server."""
        return str(self.options.get("flink_master", "[auto]"))

    def arguments(self) -> tuple[str, ...]:
        """Returns the command-line arguments for Beam."""
        found = [f"--runner={self._runner}"]
        if not self._has(*_MADE_OF) and self._workers_are_at_hand:
            # Without an image, TFX packages itself for workers that have it already: 50 MB in the temporary folder per stage.
            found.append("--sdk_container_image=at-hand")
        if self._runner == _DIRECT and self.in_memory_limit:
            found.append(f"--in_memory_limit={self.in_memory_limit}")
        for key, value in self.options.items():
            if value is True:
                found.append(f"--{key}")
            elif value is not False:
                found += [f"--{key}={v}" for v in (value if isinstance(value, tuple) else (value,))]
        return tuple(found)

    @property
    def _runner(self) -> str:
        return _NAMES.get(self.runner.lower().removesuffix("runner"), self.runner)

    @property
    def _workers_are_at_hand(self) -> bool:
        if "environment_type" in self.options:
            return self.options["environment_type"] in _NO_IMAGE
        # Beam's Flink runner then uses the stage's own process.
        return self._runner == _DIRECT or (self._runner == FLINK and self.flink_master in _LOCAL)

    def _has(self, *options: str) -> bool:
        return any(self.options.get(o) for o in options)
