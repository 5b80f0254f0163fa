"""A pipeline for the stand-in whose tasks do nothing."""

TASKS = {"ingest": "ingest", "data-gate": "data_gate", "training": "training"}
GIVEN = {"parameters": {}, "pipeline_root": None, "service_account": None, "mlflow_experiment": "mine"}


def spec_of(retries=0, tasks=TASKS):
    names = list(tasks)
    executors = {f"exec-{n}": {"container": {"image": "switchyard:1", "command": ["true"]}} for n in names}
    policy = {"retryPolicy": {"maxRetryCount": retries, "backoffDuration": "1s", "backoffFactor": 2}} if retries else {}
    nodes = {
        name: {
            "taskInfo": {"name": name},
            "componentRef": {"name": f"comp-{name}"},
            **({"dependentTasks": [names[i - 1]]} if i else {}),
            **policy,
        }
        for i, name in enumerate(names)
    }
    return {
        "pipelineInfo": {"name": "breast-cancer"},
        "root": {"dag": {"tasks": nodes}},
        "components": {f"comp-{n}": {"executorLabel": f"exec-{n}"} for n in names},
        "deploymentSpec": {"executors": executors},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
    }


def submitted(client, **given):
    return client.submit("one", client.experiment("mine"), {"pipeline_spec": spec_of(**given)}, **GIVEN).run_id


class Told:
    """A display that records what it shows."""

    def __init__(self):
        self.statuses, self.said, self.events = [], [], []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def stages(self, names):
        pass

    def status(self, stage, status, seconds=None):
        self.statuses.append((stage, status))
        self.events.append(f"{stage}: {status}")
        assert seconds is None or seconds >= 0

    def say(self, stage, text):
        self.said.append(f"{stage}: {text}")
        self.events.append(f"{stage}: {text}")
