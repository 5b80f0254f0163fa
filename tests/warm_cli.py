"""The `switchyard` command, many times in one process: what a fresh one costs (ten seconds of imports) is paid once.

Reads a JSON object a line from standard input (arguments, cwd, env), runs the command as the console script does, and
answers with a JSON object a line on standard output. The stages run in children of a fork server, as always.
"""

import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil


def main():
    answers = os.fdopen(os.dup(1), "w")
    from switchyard.components.training.trainers import TRAINERS
    from switchyard.components.training.workers.training_process import TrainingServers
    from switchyard.pipelines.cli import main as command
    from switchyard.pipelines.runners.local.process import StageProcesses

    work = Path(tempfile.mkdtemp(prefix="warm-"))
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with TrainingServers(["pytorch"], work) as servers:
        os.environ.update(servers.environment)
        [server] = psutil.Process().children()
        StageProcesses(work / "preload.log", [TRAINERS["tensorflow"]]).warm()
        # The fork for modules, which no test leaves behind.
        while not server.children() and server.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)
        # Millions of objects of imports, which each full collection would go through.
        gc.collect()
        gc.freeze()
        print("ready", file=answers, flush=True)
        _answer(command, answers, work)


def _answer(command, answers, work):
    environment, path = dict(os.environ), list(sys.path)
    for line in sys.stdin:
        request = json.loads(line)
        os.chdir(request["cwd"])
        os.environ.update(request["env"])
        files = [os.open(work / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")]
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        code = 0
        try:
            command(request["arguments"], prog_name="switchyard")
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        texts = [(work / name).read_text(errors="replace") for name in ("out", "err")]
        for file in files:
            os.close(file)
        os.environ.clear()
        os.environ.update(environment)
        # The folder of a user's code, which the stages of the next command would be given.
        sys.path[:] = path
        answers.write(json.dumps({"code": code, "stdout": texts[0], "stderr": texts[1]}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
