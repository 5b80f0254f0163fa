"""The end of a stage that is terminated, as on a real KFP (tests/kubeflow/README.md): a second at most, not Kubernetes' thirty.

Argo signals the process group, KFP's launcher dies at once, and its container with the next poll.
"""

import threading
import time

SECONDS = 1.0


def terminate(process, alive):
    """Sends SIGTERM, and SIGKILL a second later to what is still there; returns at once.

    Args:
        process: has `terminate` and `kill`.
        alive: returns whether it runs.
    """

    def kill():
        deadline = time.monotonic() + SECONDS
        while alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        if alive():
            process.kill()

    process.terminate()
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread
