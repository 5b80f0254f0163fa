"""Executes the infra-validation stage, with one server process per candidate."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from switchyard.components.bundle.model import bundle_path
from switchyard.components.data.summary import DatasetSummary, split_files
from switchyard.components.evaluation.servability import FILE, Servability, save
from switchyard.components.infra_validation.check import TOLERANCE, check
from switchyard.components.infra_validation.config import InfraValidationSettings
from switchyard.components.progress import say, warn
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import digest_of

# Each server loads the frameworks and takes more than a gigabyte of memory.
_AT_ONCE = 2


class Executor(base_executor.BaseExecutor):
    """The executor from raw `examples` and one or several `model`s to `blessing`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """Validates all candidates and writes the blessing."""
        settings = InfraValidationSettings.model_validate_json(exec_properties["settings"])
        examples = artifact_utils.get_single_uri(input_dict["examples"])
        rows = read_rows(split_files(examples, DatasetSummary.load(examples).held_out), settings.rows)
        bundles = {
            m.get_string_custom_property("framework"): (str(bundle_path(m.uri)), digest_of(m)) for m in input_dict["model"]
        }
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        folder = Path(blessing.uri)
        folder.mkdir(parents=True, exist_ok=True)

        def one(item: tuple[str, tuple[str, str | None]]) -> Servability:
            name, (bundle, digest) = item
            found = check(bundle, digest, rows, folder / f"{name}.log", settings.startup_seconds)
            _report(name, found)
            return found

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="candidate") as pool:
            found = dict(zip(bundles, pool.map(one, bundles.items()), strict=True))
        save(found, folder)
        all_servable = all(f.servable for f in found.values())
        # TFX's Pusher expects this file and property, which TFX's InfraValidator writes.
        (folder / ("INFRA_BLESSED" if all_servable else "INFRA_NOT_BLESSED")).touch()
        blessing.set_int_custom_property("blessed", int(all_servable))
        _track(found, folder)


def read_rows(files: list[str], rows: int) -> list[bytes]:
    """Returns up to `rows` serialized examples, interleaved from all files."""
    dataset = tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset, cycle_length=max(1, len(files)), deterministic=True
    )
    return list(dataset.take(rows).as_numpy_iterator())


def _report(name: str, found: Servability) -> None:
    if not found.servable:
        warn(f"{name} cannot be served: {found.reason}")
        return
    latency = found.latency_ms.get("p50_batch_1")
    speed = "" if latency is None else f", {latency:.1f} ms for one row (median)"
    if found.difference and found.difference > TOLERANCE:
        warn(
            f"{name}: served scores differ from the offline ones by up to {found.difference:.1g}, as the model's own scores do "
            f"with the size of the batch ({found.own_difference:.1g})"
        )
    say(f"{name} serves: {found.rows} rows answered as offline, ready after {found.startup_seconds:.1f} s{speed}")


def _track(found: Mapping[str, Servability], folder: Path) -> None:
    run = tracking.current_run()
    run.tags({"infra_blessed": str(all(f.servable for f in found.values())).lower()})
    for name, each in found.items():
        prefix = "serving." if len(found) == 1 else f"serving.{name}."
        measured = {
            "rows": each.rows,
            "difference": each.difference,
            "own_difference": each.own_difference,
            "startup_seconds": each.startup_seconds,
            **{f"latency_{k}_ms": v for k, v in each.latency_ms.items()},
        }
        run.metrics({prefix + k: float(v) for k, v in measured.items() if v is not None})
        if not each.servable:
            run.tags({f"{name}.cannot_be_served": each.reason})
    run.file(str(folder / FILE), "infra_validation")
