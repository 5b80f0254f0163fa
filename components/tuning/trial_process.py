"""`python -m switchyard.components.tuning.trial_process TRAINER...`: trains trials, each in a fork of this process.

The frameworks are imported once and never used here, so every trial starts from the same clean state, and one that crashes
or is killed for memory takes nothing with it. Talks in lines of JSON: a trial's job on standard input; on standard output what
the trial reports each epoch, answered by `go` or `prune`, and how it ended. It ends when standard input does.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from switchyard.components.errors import Failure, TrainingError, UserError, in_one_line
from switchyard.components.import_order import import_torch_first
from switchyard.components.text.redaction import install

GO, PRUNE = "go", "prune"
_POLL_MS = 100


class _Pruned(BaseException):
    """Not an Exception: nothing between the report and the trial's end may take it for a mistake."""


def main(modules: list[str]) -> None:
    """Serves until standard input ends."""
    # What libraries print goes to the log (2); the descriptor behind the old 1 is for us alone.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    install()
    if modules != ["switchyard.components.training.tensorflow.trainer"]:
        import_torch_first()
    for module in ("switchyard.components.training.executor", *modules):
        importlib.import_module(module)
    print(json.dumps({"ready": True}), file=out)
    while line := _line():
        if not line.startswith("{"):
            continue  # an answer, or the rest of one, to a trial that was killed before it read it
        child = os.fork()
        if child == 0:
            _trial(json.loads(line), out)
        if status := _wait(child):
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            print(json.dumps({"failed": asdict(Failure(TrainingError.kind, f"its process {how}"))}), file=out)


def _wait(child: int) -> int:
    """Returns the child's status; kills it when standard input ends: the stage is gone, or has had enough."""
    stage = select.poll()
    stage.register(0, 0)  # a hang-up is always told
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if stage.poll(_POLL_MS):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os._exit(1)


def _line() -> str:
    """Reads a line without reading ahead: what follows may be for the child."""
    found = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        found += byte
    return found.decode()


def _trial(job: dict[str, Any], out: Any) -> None:
    from switchyard.components.user_code.loading import users_error

    def report(step: int, metrics: Mapping[str, float]) -> None:
        print(json.dumps({"step": step, "metrics": dict(metrics)}), file=out)
        answer = _line()
        if answer == PRUNE:
            raise _Pruned
        if answer != GO:
            os._exit(1)  # the stage is gone

    try:
        end: dict[str, Any] = {"done": _train(job, report)}
    except _Pruned:
        end = {"pruned": True}
    except (UserError, TrainingError) as error:
        end = {"failed": asdict(Failure(error.kind, str(error)))}
    except BaseException as error:
        traceback.print_exc()
        # Whatever it is: another trial may do better.
        end = {"failed": asdict(Failure(TrainingError.kind, users_error(error) or in_one_line(error)))}
    print(json.dumps(end), file=out)
    out.flush()
    sys.stderr.flush()
    # Threads and native libraries must not hold the trial up.
    os._exit(0)


def _train(job: dict[str, Any], report: Any) -> dict[str, Any]:
    from switchyard.components.training.job import TrainingJob
    from switchyard.components.training.workers.group import train

    return asdict(train(TrainingJob(**job), report))


if __name__ == "__main__":
    main(sys.argv[1:])
