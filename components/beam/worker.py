"""A Beam worker where Switchyard is installed: the command of Beam's PROCESS environment, or of a worker pool.

Equivalent to the boot program of Beam's containers (https://beam.apache.org/documentation/runtime/environments/), but stages no
artifacts: the pipeline's dependencies are installed. Imports PyTorch first, see `switchyard.components.import_order`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from switchyard.components.process.account import ensure_account
from switchyard.components.process.interpreter import protect_children

# Flink's task manager waits one minute for its worker.
_PATIENCE_SECONDS = 60


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a worker until the engine that started it closes the connection."""
    parser = argparse.ArgumentParser(prog="switchyard-beam-worker", description=__doc__)
    parser.add_argument("--id", required=True, help="the worker's name")
    for service in ("provision", "control", "logging", "artifact", "status"):
        parser.add_argument(f"--{service}_endpoint", required=service == "provision", metavar="HOST:PORT")
    given, _ = parser.parse_known_args(arguments)
    ensure_account()
    protect_children()
    os.environ.update(_environment(given))
    # An engine can run any number of workers per GPU, and TensorFlow would allocate all of its memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    from switchyard.components.import_order import import_torch_first

    import_torch_first()
    from apache_beam.runners.worker import sdk_worker_main

    from switchyard.components.compat import beam_local_globs, tensorflow_globs

    beam_local_globs.install()
    tensorflow_globs.install()

    sdk_worker_main.main([])


def _environment(given: argparse.Namespace) -> dict[str, str]:
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
    from google.protobuf import json_format, text_format

    with grpc.insecure_channel(given.provision_endpoint) as channel:
        info = (
            beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
            .GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=(("worker_id", given.id),),
                timeout=_PATIENCE_SECONDS,
                wait_for_ready=True,
            )
            .info
        )
    found = {
        "WORKER_ID": given.id,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    for name in ("control", "logging", "status"):
        url = getattr(given, f"{name}_endpoint") or getattr(info, f"{name}_endpoint").url
        if url:
            service = endpoints_pb2.ApiServiceDescriptor(url=url)
            found[f"{name.upper()}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(service, as_one_line=True)
    return found


if __name__ == "__main__":
    main()
