"""What the compiler makes of a pipeline, what it refuses, and that the same pipeline gives the same bytes."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from tfx import v1 as tfx
from tfx.components import CsvExampleGen, StatisticsGen
from tfx.dsl.component.experimental import container_component, placeholders
from tfx.dsl.components.base import executor_spec
from tfx.dsl.experimental.conditionals import conditional
from tfx.orchestration import data_types
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from switchyard.components.data_gate.inferred_schema import StatisticsExecutor
from switchyard.components.errors import UserError
from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.runners.kubeflow.carried_files import carry, packed, unpack, unpacked
from switchyard.pipelines.runners.kubeflow.compiler.check import complaints_of
from switchyard.pipelines.runners.kubeflow.compiler.compile import compile_tfx_pipeline, shortened, with_environment
from tests.command import REPOSITORY
from tests.kubeflow import constructs, taxi

pytestmark = pytest.mark.core
GOLDEN = Path(__file__).parent / "golden"
EXAMPLE = REPOSITORY / "pipelines" / "examples" / "breast_cancer" / "pipeline.yaml"


def pipeline(*components, name="small", root="/tmp/root"):
    return Pipeline(name, root, components=list(components), enable_cache=True)


def compiled(*components, **given):
    return compile_tfx_pipeline(pipeline(*components), image="switchyard:1", **given)


def numbers(**given):
    return constructs.numbers(**{"n": 1, "flag": "x", "weights": [], "loud": True, **given})


def refused(*components, **given):
    with pytest.raises(UserError) as error:
        compiled(*components, **given)
    return str(error.value)


def test_the_same_pipeline_is_the_same_bytes(tmp_path):
    taxi.write_data(tmp_path / "data" / "trips.csv", rows=20)
    first = compile_tfx_pipeline(taxi.taxi(str(tmp_path)), image="a:1")
    second = compile_tfx_pipeline(taxi.taxi(str(tmp_path)), image="a:1")
    assert first.to_yaml() == second.to_yaml()
    assert "def preprocessing_fn" in first.source, "the user's module can be read in the source"


@pytest.mark.parametrize("which", [constructs.constructs, taxi.taxi])
def test_a_compiled_pipeline_loads_and_compiles_again_to_the_same(tmp_path, which):
    from kfp import compiler as kfp_compiler
    from kfp import components

    taxi.write_data(tmp_path / "data" / "trips.csv", rows=20)
    made = compile_tfx_pipeline(which(str(tmp_path)), image="switchyard:1")
    path = tmp_path / "kfp.yaml"
    path.write_text(made.to_yaml())
    again = tmp_path / "again.yaml"
    kfp_compiler.Compiler().compile(components.load_component_from_file(str(path)), str(again))
    documents = list(yaml.safe_load_all(again.read_text()))
    assert documents[0] == made.spec
    assert documents[1] == made.platform


def test_the_generated_source_stands_alone(tmp_path, monkeypatch):
    from kfp import compiler as kfp_compiler

    made = compiled(numbers())
    (tmp_path / "standing_alone.py").write_text(made.source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("standing_alone")
    kfp_compiler.Compiler().compile(module.pipeline, str(tmp_path / "out.yaml"))
    del sys.modules["standing_alone"]
    assert shortened(next(yaml.safe_load_all((tmp_path / "out.yaml").read_text()))) == made.spec


def test_broken_references_are_found():
    spec = json.loads(
        json.dumps(compiled(one := numbers().with_id("one"), constructs.annotate(examples=one.outputs["examples"])).spec)
    )
    tasks = spec["root"]["dag"]["tasks"]
    artifact = tasks["annotate"]["inputs"]["artifacts"]["examples"]["taskOutputArtifact"]
    artifact["outputArtifactKey"] = "nothing"
    assert complaints_of(spec) == ["root/annotate: examples: 'one' has no output 'nothing'"]
    artifact["producerTask"] = "no_task"
    assert complaints_of(spec) == ["root/annotate: examples: unknown task 'no_task'"]
    tasks["annotate"]["inputs"]["artifacts"] = {}
    assert complaints_of(spec) == ["root/annotate: input examples has no value"]


def test_variables_of_one_run_do_not_replace_those_of_a_stage():
    made = compiled(numbers().with_id("one"), stages={"one": StageResources(environment={"A": "stage"})})
    spec = with_environment(made, {"A": "run", "B": "run"}).spec
    env = spec["deploymentSpec"]["executors"]["exec-one"]["container"]["env"]
    assert {e["name"]: e["value"] for e in env}["A"] == "stage"
    assert {e["name"]: e["value"] for e in env}["B"] == "run"
    assert "env" not in made.spec or made.spec != spec


@pytest.mark.parametrize(("uncached", "where"), [((), {"exec-one"}), (("two", "three"), {"exec-two"})])
def test_the_run_record_is_in_the_first_task_that_always_runs(uncached, where):
    one = numbers().with_id("one")
    two = constructs.annotate(examples=one.outputs["examples"]).with_id("two")
    three = constructs.annotate(examples=one.outputs["examples"]).with_id("three")
    three.add_upstream_node(two)
    made = compiled(one, two, three, stages={name: StageResources(cache=False) for name in uncached})
    spec = with_environment(made, {"A": "short"}, first={"A": "whole"}).spec
    executors = spec["deploymentSpec"]["executors"]
    given = {k: {v["name"]: v["value"] for v in e["container"]["env"]}["A"] for k, e in executors.items()}
    assert {k for k, value in given.items() if value == "whole"} == where
    assert set(given) == {"exec-one", "exec-two", "exec-three"}


def test_the_run_record_is_not_in_a_driver(tmp_path):
    gen = CsvExampleGen(input_base=str(tmp_path)).with_id("gen")
    made = compiled(gen, StatisticsGen(examples=gen.outputs["examples"]).with_id("statistics"))
    executors = with_environment(made, {"A": "short"}, first={"A": "whole"}).spec["deploymentSpec"]["executors"]
    given = {k: {v["name"]: v["value"] for v in e["container"].get("env", [])}.get("A") for k, e in executors.items()}
    assert given == {"exec-drive-gen": None, "exec-gen": "whole", "exec-statistics": "short"}


def test_compressed_files_contain_no_character_that_json_or_kfp_escape(tmp_path):
    import random

    (tmp_path / "bytes.bin").write_bytes(random.Random(1).randbytes(20_000))
    [text] = carry({tmp_path: [tmp_path / "bytes.bin"]}, {}).contents.values()
    assert len(text) < 1.26 * 20_000
    assert not set("\"\\<>&{}$'") & set(text)
    assert len(json.dumps(json.dumps(text))) == len(text) + 6


def test_types_that_a_components_class_declares_are_not_repeated():
    one = numbers().with_id("one")
    made = compiled(one, StatisticsGen(examples=one.outputs["examples"]).with_id("statistics"))
    assert "component='tfx.components.statistics_gen.component.StatisticsGen'" in made.source
    assert "ExampleStatistics" not in made.source
    assert "BeamExecutableSpec" not in made.source, "nor what it says of its executor"


def test_an_executor_of_another_component_is_reported(tmp_path):
    one = numbers().with_id("one")
    statistics = StatisticsGen(examples=one.outputs["examples"]).with_id("statistics")
    statistics.executor_spec = executor_spec.BeamExecutorSpec(StatisticsExecutor)
    made = compiled(one, statistics)
    assert "'classPath': 'switchyard.stages.StatisticsExecutor'" in made.source


def test_a_long_text_is_compressed_and_a_short_one_stays_readable():
    long = json.dumps({f"key {i}": None for i in range(200)})
    made = compiled(numbers(flag=long).with_id("one"), numbers(flag="short").with_id("two"))
    tasks = made.spec["root"]["dag"]["tasks"]
    given = {name: t["inputs"]["parameters"]["flag"]["runtimeValue"]["constant"] for name, t in tasks.items()}
    assert len(given["one"]) < len(long) / 2
    assert unpacked(given["one"]) == long
    assert given["two"] == "short"
    looks_packed = "lzma+base85:not so"
    assert unpacked(packed(looks_packed)) == looks_packed


def test_a_container_component_keeps_its_command():
    train = container_component.create_container_component(
        name="Train",
        image="trainer:1",
        inputs={"examples": standard_artifacts.Examples},
        outputs={"model": standard_artifacts.Model},
        parameters={"steps": int},
        command=[
            "train",
            "--steps",
            placeholders.InputValuePlaceholder("steps"),
            "--from",
            placeholders.InputUriPlaceholder("examples"),
            placeholders.ConcatPlaceholder(["--to=", placeholders.OutputUriPlaceholder("model")]),
        ],
    )
    one = numbers().with_id("one")
    made = compiled(one, train(examples=one.outputs["examples"], steps=3).with_id("train"))
    container = made.spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["image"] == "trainer:1"
    assert container["command"] == [
        "train",
        "--steps",
        "{{$.inputs.parameters['steps']}}",
        "--from",
        "{{$.inputs.artifacts['examples'].uri}}",
        '{"Concat": ["--to=", "{{$.outputs.artifacts[\'model\'].uri}}"]}',
    ]


def test_a_container_with_a_value_input_is_refused():
    show = container_component.create_container_component(
        name="Show",
        image="i:1",
        inputs={"score": standard_artifacts.Float},
        command=["show", placeholders.InputValuePlaceholder("score")],
    )
    one = numbers().with_id("one")
    said = refused(one, show(score=one.outputs["score"]).with_id("show"))
    assert "'show'" in said
    assert "URIs of its inputs and outputs" in said


def test_a_resolver_is_refused():
    resolver = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("latest_blessed")
    said = refused(resolver)
    assert "'latest_blessed'" in said
    assert "ML Metadata" in said


def test_a_pipeline_inside_a_pipeline_is_refused():
    assert "'inner'" in refused(pipeline(numbers(), name="inner"))


def test_a_conditional_output_outside_its_condition_is_refused():
    one = numbers().with_id("one")
    with conditional.Cond(one.outputs["score"].future()[0].value > 0.1):
        inside = constructs.annotate(examples=one.outputs["examples"]).with_id("inside")
    values = {k: one.outputs[k] for k in ("score", "name", "whole")}
    outside = constructs.read(notes=inside.outputs["notes"], **values).with_id("outside")
    said = refused(one, inside, outside)
    assert "'outside'" in said
    assert "tfx.dsl.Cond" in said


def test_a_long_exec_property_is_refused():
    import random

    said = refused(numbers(flag=random.Random(1).randbytes(9_000).hex()).with_id("one"))
    assert "'flag'" in said
    assert "bytes long, the backend's limit is 10,000" in said
    container = container_component.create_container_component(
        name="Show", image="i:1", parameters={"flag": str}, command=["show", placeholders.InputValuePlaceholder("flag")]
    )
    assert "10,001 bytes" in refused(container(flag="x" * 10_001).with_id("two")), "which nothing would unpack there"


def test_a_runtime_parameter_with_two_defaults_is_refused():
    first, second = (data_types.RuntimeParameter("flag", str, d) for d in "ab")
    assert "'flag'" in refused(numbers(flag=first).with_id("one"), numbers(flag=second).with_id("two"))


def test_a_name_that_kubeflow_needs_is_refused():
    said = refused(numbers().with_id("one"), numbers().with_id("one_driver"))
    assert "'one_driver'" in said


def test_an_unknown_stage_is_refused():
    said = refused(numbers().with_id("training"), stages={"trainig": StageResources(cpu="1")})
    assert "Did you mean 'training'?" in said


def test_too_many_files_are_refused(tmp_path):
    import random

    (tmp_path / "big.bin").write_bytes(random.Random(1).randbytes(100_000))
    said = refused(constructs.Watch(f"{tmp_path}/big.bin").with_id("watch"), local_files={tmp_path: [tmp_path / "big.bin"]})
    assert "big.bin" in said
    assert "object store" in said


def test_carried_files_arrive_as_they_were(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "text.py").write_text("print('ü')\n")
    (tmp_path / "bytes.bin").write_bytes(bytes(range(256)))
    carried = carry({tmp_path: [tmp_path / "a b" / "text.py", tmp_path / "bytes.bin"]}, {})
    value, files = carried.replaced(f"{tmp_path}/a b/text.py:function", "any")
    target = unpack({f: carried.contents[f] for f in files})
    assert value == f"{{{{files}}}}/{tmp_path.name}/a b/text.py:function"
    assert (target / tmp_path.name / "a b" / "text.py").read_text() == "print('ü')\n"
    assert (target / tmp_path.name / "bytes.bin").read_bytes() == bytes(range(256))
    assert unpack({f: carried.contents[f] for f in files}) == target


def test_an_example_gen_is_a_driver_and_an_executor(tmp_path):
    gen = CsvExampleGen(input_base=str(tmp_path)).with_id("gen")
    made = compiled(gen, StatisticsGen(examples=gen.outputs["examples"]).with_id("statistics"))
    tasks = made.spec["root"]["dag"]["tasks"]
    assert tasks["drive-gen"]["cachingOptions"] == {}
    assert tasks["gen"]["cachingOptions"] == {"enableCache": True}
    assert tasks["gen"]["inputs"]["parameters"]["driver_output"]["taskOutputParameter"]["producerTask"] == "drive-gen"
    assert made.tasks == {"gen": "gen", "statistics": "statistics"}
