"""Which stages become one task of Kubeflow's, worked out from the plan; and how its states are those of its stages."""

import pytest

from switchyard.components.errors import Failure
from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.runners.kubeflow.cluster.workflow import StageState, Workflow
from switchyard.pipelines.runners.kubeflow.compiler.joining import effectively_cached, join, members
from switchyard.pipelines.runners.kubeflow.compiler.plan import (
    IdentifierAllocator,
    InputArtifact,
    OutputArtifact,
    Plan,
    Task,
    stage_names,
    task_name,
)
from switchyard.pipelines.runners.kubeflow.task.failure import last_words

UNCACHED = StageResources(cache=False)
# Stage -> the stages whose output it takes; as breast_cancer's, with the schema inferred.
EXAMPLE = {
    "ingest": [],
    "statistics": ["ingest"],
    "schema": ["statistics"],
    "validation": ["statistics", "schema"],
    "baseline": ["ingest"],
    "data_gate": ["ingest", "statistics", "schema", "validation", "baseline"],
    "transform": ["ingest", "schema"],
    "training": ["transform", "statistics"],
    "evaluation": ["ingest", "training", "baseline"],
    "infra_validation": ["ingest", "training"],
    "registry": ["evaluation", "infra_validation"],
    "report": ["registry", "data_gate"],
}
RUN_ANEW = dict.fromkeys(("baseline", "registry", "report"), UNCACHED)


def task(name, producers, **given):
    inputs = [InputArtifact(p, "Artifact", p, "out") for p in producers]
    given.setdefault("after", ["data_gate"] if name == "transform" else [])
    return Task(name, name, "python", {}, inputs=inputs, outputs=[OutputArtifact("out", "out", "Artifact")], **given)


def plan(edges=EXAMPLE, **changes):
    tasks = [task(name, producers, **changes.get(name, {})) for name, producers in edges.items()]
    return Plan("example", tasks, {}, [])


def groups(made, stages=RUN_ANEW, alone=("training",), room=90_000, sizes=None, costly=("training",)):
    return [[m.id for m in members(t)] for t in join(made, stages, alone, room, sizes or {}, costly).tasks]


def in_series(found, made):
    """Returns the length of the longest chain of tasks that wait for each other."""
    unit_of = {stage: number for number, stages in enumerate(found) for stage in stages}
    needs = {t.id: {*t.producers, *t.after} for t in made.tasks}

    def depth(unit):
        before = {unit_of[n] for stage in found[unit] for n in needs[stage]} - {unit}
        return 1 + max(map(depth, before), default=0)

    return max(map(depth, range(len(found))))


def test_the_stages_of_the_example_are_five_tasks():
    found = groups(plan())
    assert found == [
        ["ingest", "statistics", "schema", "validation"],
        ["baseline", "data_gate"],
        ["transform"],
        ["training"],
        ["evaluation", "infra_validation", "registry", "report"],
    ]
    assert in_series(found, plan()) == 5


def test_the_stages_of_the_example_are_four_tasks_where_training_may_share_one():
    found = groups(plan(), alone=())
    assert found == [
        ["ingest", "statistics", "schema", "validation"],
        ["baseline", "data_gate"],
        ["transform", "training"],
        ["evaluation", "infra_validation", "registry", "report"],
    ]
    assert in_series(found, plan()) == 4


def test_a_training_is_the_last_of_its_task_and_cached_though_no_cached_stage_takes_its_model():
    """Else a retry of what comes after it would train again, and so would the next run."""
    edges = {stage: [p for p in producers if p != "infra_validation"] for stage, producers in EXAMPLE.items()}
    del edges["infra_validation"]
    [joint] = [t for t in join(plan(edges), RUN_ANEW, (), 90_000, {}, ["training"]).tasks if "training" in t.id]
    assert (joint.id, joint.cached) == ("transform,training", True)


@pytest.mark.parametrize("alone", [("training",), ()])
def test_joining_runs_no_cached_stage_again(alone):
    """What takes an output of a stage that runs every time runs every time too; no other does for being joined."""
    made = plan()
    cached = effectively_cached(made, RUN_ANEW)
    assert set(EXAMPLE) - cached == {"baseline", "data_gate", "evaluation", "registry", "report"}
    after = {m.id for t in join(made, RUN_ANEW, alone, 90_000, {}, ["training"]).tasks if t.cached for m in members(t)}
    # A model's server is started anew where the model is from the cache: a pod for it would take longer.
    assert cached - after == {"infra_validation"}


@pytest.mark.parametrize(
    ("stage", "given"),
    [
        ("statistics", {"memory": "8Gi"}),
        ("statistics", {"image": "other:1"}),
        ("statistics", {"accelerator": "gpu"}),
        ("statistics", {"retries": 3}),
        ("statistics", {"secrets": {"KEY": "team/key"}}),
        ("statistics", {"timeout": "1h"}),
        ("statistics", {"environment": {"A": "b"}}),
    ],
)
def test_a_stage_with_its_own_resources_is_a_task_by_itself(stage, given):
    found = groups(plan(), {**RUN_ANEW, stage: StageResources.model_validate(given)})
    assert [stage] in found


def test_stages_with_equal_resources_are_joined():
    same = StageResources(memory="8Gi")
    assert ["statistics", "schema"] in groups(plan(), {**RUN_ANEW, "statistics": same, "schema": same})


def test_stages_with_another_task_between_them_are_not_joined():
    edges = {"a": [], "b": ["a"], "c": ["b"]}
    assert groups(plan(edges), {"b": StageResources(memory="1Gi")}, alone=()) == [["a"], ["b"], ["c"]]


def test_containers_and_tasks_under_other_conditions_are_not_joined():
    made = plan({"a": [], "b": ["a"], "c": ["a"]}, c={"conditions": ("if_1",)})
    made = Plan(made.name, [*made.tasks, Task("d", "d", "container", {})], {"if_1": made.tasks[0]}, [])
    assert groups(made, {}, alone=()) == [["a", "b"], ["c"], ["d"]]


def test_a_driver_runs_before_the_task_that_its_stage_is_in():
    edges = {"a": [], "gen": ["a"], "c": ["gen"]}
    found = groups(plan(edges, gen={"driver": True}), {}, alone=())
    assert found == [["a"], ["gen", "c"]], "what its driver looks at is there only when another task has ended"


def test_tasks_whose_arguments_would_be_too_long_are_not_joined():
    made = plan({"a": [], "b": ["a"]}, a={"files": {"data.csv"}}, b={"files": {"schema"}})
    assert groups(made, {}, alone=(), sizes={"data.csv": 80_000, "schema": 9_000}) == [["a"], ["b"]]
    assert groups(made, {}, alone=(), sizes={"data.csv": 60_000, "schema": 9_000}) == [["a", "b"]]


def test_every_artifact_stays_a_separate_output():
    [joint] = join(plan({"a": [], "b": ["a"]}), {}, (), 90_000, {}).tasks
    assert [o.argument for o in joint.outputs] == ["out", "b_out"]
    assert joint.inputs == []
    assert joint.members[1].arguments == {"a": "out", "out": "b_out"}


def test_a_tasks_name_lists_its_stages():
    [joint] = join(plan({"data_gate": [], "baseline": ["data_gate"]}), {}, (), 90_000, {}).tasks
    assert stage_names(task_name(joint.function)) == ["data-gate", "baseline"]
    assert stage_names(task_name(IdentifierAllocator().allocate("first_then_second"))) == ["first-next-second"], (
        "one stage, whatever it is called"
    )


def failing(message):
    node = {"id": "n", "displayName": "a-then-b-then-c", "type": "Pod", "phase": "Failed", "message": message}
    times = {"startedAt": "2026-11-26T10:00:00Z", "finishedAt": "2026-11-26T10:00:09Z"}
    states = Workflow({"status": {"nodes": {"n": {**node, **times}}}}).stages({"a-then-b-then-c": "a,b,c"})
    return {stage: (s.state, s.message, s.exit_code) for stage, s in states.items()}


def test_the_failed_stage_is_distinguished_from_the_finished_ones():
    said = last_words(Failure("user", "label: there is no column 'x'"), "b")
    assert failing(f"main: Error (exit code 1): {said}") == {
        "a": ("SUCCEEDED", "", None),
        "b": ("FAILED", "label: there is no column 'x'", 2),
    }


def test_any_stage_of_a_task_without_a_message_may_have_failed():
    found = failing("OOMKilled (exit code 137)")
    assert {s[0] for s in found.values()} == {"FAILED"}
    assert found["c"][1] == "one of a, b, c: OOMKilled (exit code 137)"


def test_the_stages_of_a_running_or_cached_task_have_its_state():
    assert {s: f.state for s, f in StageState("SKIPPED").of_each("a,b").items()} == {"a": "SKIPPED", "b": "SKIPPED"}
    assert StageState("RUNNING").of_each("a") == {"a": StageState("RUNNING")}
