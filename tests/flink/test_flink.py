"""The Beam stages on Apache Flink: what DirectRunner finds, whoever is killed meanwhile; nothing is left running."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import tensorflow_data_validation as tfdv
import yaml
from google.protobuf.json_format import MessageToDict

from switchyard.components.training.examples import transformed_examples
from tests.command import all_gone, free_port, lines_until, run, start, switchyard
from tests.flink.cluster import JAR, flink_cluster

pytestmark = [
    pytest.mark.skipif(not JAR.is_file(), reason=f"no {JAR}: `make flink` did not get Beam's Flink job server"),
    pytest.mark.skipif(not shutil.which("java"), reason="no java on the PATH"),
]
QUICK = ["--set", "trainer.hyperparameters.epochs=3", "--set", "serving.infra_validation=null"]
WORKER = Path(sys.executable).parent / "switchyard-beam-worker"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Numbers, one of them missing at times, and a word; slices by the word."""
    folder = tmp_path_factory.mktemp("flink")
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, 20000))
    word = random.choice(["a", "b", "c"], len(x))
    y = (x + 0.5 * z + (word == "a") + random.normal(size=len(x)) > 0).astype(int)
    z[random.random(len(z)) < 0.1] = np.nan
    pd.DataFrame({"x": x, "z": z, "word": word, "y": y}).to_csv(folder / "d.csv", index=False)
    document = {"name": "flink", "data": {"path": "d.csv"}, "label": "y", "evaluation": {"slices": ["word"]}}
    (folder / "p.yaml").write_text(yaml.safe_dump(document))
    return folder / "p.yaml"


@pytest.fixture(scope="module")
def direct(pipeline):
    """A run's artifacts, all of it in the stages' own processes."""
    workspace = pipeline.parent / "direct"
    run(pipeline, workspace, *QUICK)
    return workspace / "artifacts"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with flink_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def on(cluster):
    options = {
        "flink_master": cluster.master,
        "parallelism": 2,
        "environment_type": "PROCESS",
        "environment_config": json.dumps({"command": str(WORKER)}),
    }
    return ["--set", f"beam={json.dumps({'runner': 'FlinkRunner', 'options': options})}"]


def only(folder):
    [found] = folder.iterdir()
    return found


def newest(folder):
    return max(folder.iterdir(), key=lambda f: int(f.name))


def statistics(artifacts):
    found = {}
    for split in sorted(only(artifacts / "statistics" / "statistics").glob("Split-*")):
        for dataset in tfdv.load_stats_binary(str(split / "FeatureStats.pb")).datasets:
            found[split.name] = {f.path.step[0]: MessageToDict(f) for f in dataset.features}
            for feature in found[split.name].values():
                sketch(feature.get("numStats", {}), dataset.num_examples)
            found[split.name]["rows"] = dataset.num_examples
    return found


def sketch(numbers, rows):
    """Replaces histograms by their ends and shares of rows: they are sketches, which depend on how an engine splits rows."""
    for histogram in numbers.pop("histograms", []):
        buckets = histogram["buckets"]
        kind = histogram.get("type", "STANDARD")
        numbers[f"ends, {kind}"] = [buckets[0].get("lowValue", 0.0), buckets[-1].get("highValue", 0.0)]
        if kind == "STANDARD":
            numbers["shares"] = tuple(bucket.get("sampleCount", 0.0) / rows for bucket in buckets)


def transformed(artifacts):
    """The transformed examples, sorted: engines write rows in orders of their own."""
    found = {}
    for split in sorted(only(artifacts / "transform" / "transformed_examples").glob("Split-*")):
        source = transformed_examples(split.parent, split.name.removeprefix("Split-"))
        features, labels = next(source.batches(source.rows))
        table = np.concatenate([labels[:, None], *(v.reshape(len(labels), -1) for v in features.values())], axis=1)
        found[split.name] = table[np.lexsort(np.round(table, 4).T)]
    return found


def evaluation(artifacts):
    model = json.loads((newest(artifacts / "evaluation" / "evaluation") / "metrics.json").read_text())["models"]["tensorflow"]
    return {"all": model["metrics"], **model["slices"]}


def same(one, other):
    """Whether two trees of figures are the same to 1e-6, and shares of sketches to 0.002 of the rows."""
    if isinstance(one, tuple):
        return np.allclose(one, other, rtol=0, atol=0.002)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, rel=1e-6, abs=1e-6) if isinstance(one, int | float) else one == other


class Killer(threading.Thread):
    """Kills a Beam worker while statistics run on the cluster, and a whole task manager while transform does."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.stage, self.killed = cluster, "", Counter()

    def run(self):
        deadline = time.monotonic() + 900
        while sum(self.killed.values()) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
            jobs = [j for j in self.cluster.ask("/jobs/overview")["jobs"] if j["state"] == "RUNNING"]
            workers = self.cluster.workers()
            if not jobs or not workers or not jobs[0]["tasks"]["running"]:
                continue
            if self.stage == "statistics" and not self.killed["worker"]:
                workers[0].kill()
                self.killed["worker"] += 1
            elif self.stage == "transform" and not self.killed["task manager"]:
                psutil.Process(workers[0].ppid()).kill()
                self.killed["task manager"] += 1


@pytest.mark.timeout(1200)
def test_killed_workers_change_nothing(pipeline, direct, cluster):
    workspace = pipeline.parent / "cluster"
    process = start("run", pipeline, "--workspace", workspace, "--json", *QUICK, *on(cluster))
    killer = Killer(cluster)
    killer.start()
    shown = []
    for line in process.stderr:
        shown.append(line)
        if ": running" in line:
            killer.stage = line.split()[1].rstrip(":")
    answer = json.loads(process.stdout.read().splitlines()[-1])
    assert process.wait() == 0, "".join(shown)
    assert answer["status"] == "blessed"
    assert killer.killed == {"worker": 1, "task manager": 1}
    jobs = {j["jid"]: j["state"] for j in cluster.ask("/jobs/overview")["jobs"]}
    assert set(jobs.values()) == {"FINISHED"}
    assert len(jobs) >= 3
    failures = [cluster.ask(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"] for job in jobs]
    assert sum(map(bool, failures)) == 2, "both kills should have been seen by a job"

    artifacts = workspace / "artifacts"
    assert same(statistics(artifacts), statistics(direct))
    for split, rows in transformed(direct).items():
        np.testing.assert_allclose(transformed(artifacts)[split], rows, rtol=1e-6, atol=1e-6)
    # The order of rows counts in training: the same model, then, is evaluated by DirectRunner too.
    by_flink = evaluation(artifacts)
    again = run(pipeline, workspace, *QUICK, "--set", "evaluation.improvement=null")
    assert {s: again.stages[s] for s in ("statistics", "transform", "training")} == dict.fromkeys(
        ("statistics", "transform", "training"), "cached"
    )
    assert again.stages["evaluation"] == "ran"
    assert same(by_flink, evaluation(artifacts))


def test_the_runs_own_job_server_ends_with_the_run_and_gives_the_same_statistics(pipeline, direct, tmp_path):
    """The one setting; killed with the run, and gone after it."""
    flink = ["--set", "beam.runner=FlinkRunner", "--trainer", "pytorch", *QUICK]
    process = start("run", pipeline, "--workspace", tmp_path, *flink)
    lines_until(process, " statistics: running")
    children = psutil.Process(process.pid).children(recursive=True)
    assert any(c.name() == "java" for c in children)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    all_gone(children)
    done = run(pipeline, tmp_path, *flink)
    assert done.json["status"] == "blessed"
    assert done.stages["ingest"] == "cached"
    assert [p for p in psutil.process_iter(["cmdline"]) if str(JAR) in " ".join(p.info["cmdline"] or [])] == []
    assert same(statistics(tmp_path / "artifacts"), statistics(direct))
    files = [pipeline.parent / "d.csv", "-o", tmp_path / "scores.parquet"]
    scored = switchyard("predict", "flink@champion", *files, "--workspace", tmp_path, "--beam-arg=--runner=FlinkRunner")
    assert scored.code == 0, scored.stderr
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 20000


def test_a_worker_pool_predicts_as_this_machine_does(pipeline, direct, cluster, tmp_path):
    """EXTERNAL workers: a pool beside the task managers starts them."""
    port = free_port()
    pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    options = {
        "runner": "FlinkRunner",
        "flink_master": cluster.master,
        "parallelism": 2,
        "environment_type": "EXTERNAL",
        "environment_config": f"localhost:{port}",
    }
    beam = [f"--beam-arg=--{name}={value}" for name, value in options.items()]
    scores = {}
    with subprocess.Popen(
        [*pool, f"--container_executable={WORKER}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        for name, arguments in (("here", []), ("there", beam)):
            output = tmp_path / f"{name}.parquet"
            files = [pipeline.parent / "d.csv", "-o", output, "--workspace", direct.parent]
            done = switchyard("predict", "flink@champion", *files, *arguments)
            assert done.code == 0, done.stderr
            scores[name] = pd.read_parquet(output)
        for child in psutil.Process(process.pid).children():
            child.terminate()
        process.terminate()
    pd.testing.assert_frame_equal(scores["here"], scores["there"], rtol=1e-6)


def test_a_java_that_fails_to_start_is_an_error(pipeline, tmp_path):
    jar = tmp_path / "job-server.jar"
    jar.write_text("no jar")
    broken = ["--set", "beam.runner=FlinkRunner", "--set", f"beam.options.flink_job_server_jar={jar}"]
    done = switchyard("run", pipeline, "--workspace", tmp_path / "w", *broken)
    assert done.code == 1
    assert "Flink's job server ended with exit code 1: Error: Invalid or corrupt jarfile" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_worker_describes_its_options():
    done = subprocess.run([WORKER, "--help"], capture_output=True, text=True, check=True)
    assert "--provision_endpoint HOST:PORT" in done.stdout
