"""`python -m components.training.launcher`: PyTorch's launcher, which ends, with its workers, when the stage does.

Takes the arguments of `python -m torch.distributed.run`.
"""

from __future__ import annotations

import os
import select
import signal
import threading

# A worker that died, for want of memory say, is started again so often, from the last checkpoint.
RESTARTS = 3
# Set where standard input is a pipe from the stage, whose end it tells.
STAGE_PIPE = "SWITCHYARD_STAGE_PIPE"


def _end_with_the_stage() -> None:
    stage = select.poll()
    stage.register(0, 0)  # a hang-up is always told
    stage.poll()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from torch.distributed.run import main

    # One store for all restarts would hand the workers what those before them left there.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if os.environ.get(STAGE_PIPE):
        threading.Thread(target=_end_with_the_stage, daemon=True).start()
    main()
