"""`python -m torch.distributed.run ... -m switchyard.components.training.workers.worker JOB.json`: one worker of a training.

PyTorch's launcher starts the workers of every trainer, and restarts all of them when one dies; training then resumes from the
last checkpoint. The first worker writes messages as JSON lines on standard output, read by `components.training.workers.group`:
each epoch's metrics, and the result. User errors and divergence exit with code 0, as a restart would not help.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from switchyard.components.errors import Failure, TrainingError, UserError
from switchyard.components.import_order import import_scipy_signal_later, import_torch_first, without_other_frameworks
from switchyard.components.progress import set_sink
from switchyard.components.text.redaction import install
from switchyard.components.training.contract import WorkerGroup
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.trainers import trainer_class
from switchyard.components.training.workers.addresses import exchanged
from switchyard.components.training.workers.protocol import message
from switchyard.components.training.workers.training_process import STAGES_OWN
from switchyard.components.user_code.loading import users_error


def main(job_file: str) -> None:
    """Trains this worker's shard."""
    install()
    group = _group()

    def report(step: int, metrics: Mapping[str, float]) -> None:
        if group.shard.first:
            _send(step=step, metrics=dict(metrics))

    if group.shard.first:
        set_sink(lambda text: _send(log=text))
    try:
        job = TrainingJob.model_validate_json(Path(job_file).read_text(encoding="utf-8"))
        _import_framework(job.settings.framework)
        result = job.run(report, group)
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
    meeting = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return WorkerGroup(index, count, local_index, partial(exchanged, index, count, meeting))


def _import_framework(framework: str) -> None:
    """Imports Keras without PyTorch; for other trainers PyTorch, before a user's own imports TensorFlow."""
    if framework == STAGES_OWN:
        with without_other_frameworks():
            trainer_class(framework)
    else:
        import_torch_first()
        import_scipy_signal_later()


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
