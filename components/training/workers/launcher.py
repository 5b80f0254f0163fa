"""`python -m switchyard.components.training.workers.launcher`: PyTorch's launcher, which shuts down when the stage ends.

Takes the arguments of `python -m torch.distributed.run`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading

from switchyard.components.process import variables
from switchyard.components.training.workers import lease

# Restarts of the workers from the last checkpoint, for example after an out-of-memory kill.
RESTARTS = 3


def _end_with_the_stage() -> None:
    stage = select.poll()
    stage.register(0, 0)  # poll() always reports a hang-up
    stage.poll()
    os.kill(os.getpid(), signal.SIGTERM)


def _end_with_the_lease(given: str) -> None:
    lease.await_expiry(given)
    sys.stderr.write("the training stage has ended: this node stops\n")
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    leased = os.environ.get(variables.LEASE)
    if leased and lease.expired(leased):
        sys.exit("the training stage has ended: this node does not start")
    from torch.distributed.run import main

    # A store shared between restarts would expose stale values of the previous workers.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if leased:
        threading.Thread(target=_end_with_the_lease, args=(leased,), daemon=True).start()
    if os.environ.get(variables.STAGE_PIPE):
        threading.Thread(target=_end_with_the_stage, daemon=True).start()
    main()
