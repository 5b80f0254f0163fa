"""Compiles and runs the conformance pipelines under the real backend's rules; prints what came out as JSON."""

import json
import sys
import time
from pathlib import Path

from switchyard.pipelines.runners.kubeflow.compiler.compile import compile_tfx_pipeline
from switchyard.pipelines.runners.kubeflow.local.try_out import run_compiled
from switchyard.pipelines.runners.local.process import StageProcesses


def main(folder: Path) -> None:
    StageProcesses(folder / "preload.log", ["kfp.dsl.executor_main", "switchyard.pipelines.runners.kubeflow.task.node"]).warm()
    from tests.kubeflow import backend_rules, constructs, taxi

    (folder / "watched.txt").write_text("seen")
    (folder / "imported").mkdir()
    taxi.write_data(folder / "data" / "trips.csv")
    found = {}

    def run(name, pipeline, arguments=None, *, joined=False):
        said = []
        started = time.monotonic()
        try:
            compiled = compile_tfx_pipeline(pipeline, image="switchyard:test", joined=joined)
            outputs = run_compiled(compiled, folder / name, arguments, said.append)
            error = None
        except Exception as e:
            outputs, error = {}, f"{type(e).__name__}: {e}"
        plain = {
            node: {key: {"uri": a.uri, "metadata": a.metadata} if hasattr(a, "uri") else a for key, a in by_key.items()}
            for node, by_key in outputs.items()
        }
        found[f"{name}{2 if name in found else ''}"] = {
            "outputs": plain,
            "said": said,
            "error": error,
            "seconds": time.monotonic() - started,
        }

    with backend_rules.imposed() as lost:
        run("constructs", constructs.constructs(str(folder)), {"flag": "given"})
        run("constructs", constructs.constructs(str(folder)), {"flag": "given"})
        run("joined", constructs.constructs(str(folder)), {"flag": "given"}, joined=True)
        run("failing", constructs.failing(str(folder)))
        run("taxi", taxi.taxi(str(folder)))
    found["lost"] = lost
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
