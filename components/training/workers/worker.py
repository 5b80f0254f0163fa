"""`python -m torch.distributed.run ... -m switchyard.components.training.workers.worker JOB.json`: one worker of a training.

PyTorch's launcher starts the workers of every trainer, and restarts all of them when one dies; training then resumes from the
last checkpoint. The first worker writes messages as JSON lines on standard output, read by `components.training.workers.group`:
each epoch's metrics, and the result. User errors and divergence exit with code 0, as a restart would not help.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from switchyard.components.import_order import import_torch_first

import_torch_first()

from torch import distributed  # noqa: E402 (import_torch_first() must run before)

from switchyard.components.errors import Failure, TrainingError, UserError  # noqa: E402
from switchyard.components.progress import set_sink  # noqa: E402
from switchyard.components.text.redaction import install  # noqa: E402
from switchyard.components.training.contract import WorkerGroup  # noqa: E402
from switchyard.components.training.workers.protocol import message  # noqa: E402
from switchyard.components.user_code.loading import users_error  # noqa: E402

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(job_file: str) -> None:
    """Trains this worker's shard."""
    install()
    group = _group()
    from switchyard.components.training.job import TrainingJob  # imports TensorFlow, which must follow PyTorch

    def report(step: int, metrics: Mapping[str, float]) -> None:
        if group.shard.first:
            _send(step=step, metrics=dict(metrics))

    if group.shard.first:
        set_sink(lambda text: _send(log=text))
    try:
        result = TrainingJob.model_validate_json(Path(job_file).read_text(encoding="utf-8")).run(report, group)
        if group.shard.first:
            _send(done=asdict(result))
    except (UserError, TrainingError) as error:
        _send(failed=asdict(Failure(error.kind, str(error))))
    except BaseException as error:
        traceback.print_exc()
        # Errors caused by another worker's exit are not reported: the launcher restarts the workers.
        if not (reason := users_error(error, directly=True)):
            _leave(1)
        _send(failed=asdict(Failure(UserError.kind, reason)))
    _leave(0)


def _group() -> WorkerGroup:
    """Returns this worker's group from the launcher's environment variables."""
    index, count, local_index = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return WorkerGroup(index, count, local_index, _exchange_addresses)


def _exchange_addresses() -> tuple[str, ...]:
    host = "127.0.0.1" if os.environ["MASTER_ADDR"] in _LOOPBACK else socket.gethostbyname(socket.gethostname())
    with socket.socket() as free:
        free.bind((host, 0))
        own = f"{host}:{free.getsockname()[1]}"
    distributed.init_process_group("gloo")
    addresses: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(addresses, own)
    distributed.destroy_process_group()
    return tuple(addresses)


def _send(**content: Any) -> None:
    # One write per line, as several processes share the pipe.
    os.write(1, (message(content) + "\n").encode())


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # Leftover threads and native libraries must not delay the other workers.
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
