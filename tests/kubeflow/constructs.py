"""A TFX pipeline that holds nothing of Switchyard's: every construct that the compiler knows, each small."""

import json
import os
from typing import Any

from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, OutputDict, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.base import base_component, base_driver, base_executor, executor_spec
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.experimental.conditionals import conditional
from tfx.dsl.input_resolution.canned_resolver_functions import latest_created  # noqa: F401 (must not disturb)
from tfx.orchestration import data_types, data_types_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact, channel, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter


class Notes(artifact.Artifact):
    """An artifact type of one's own, with properties of every kind."""

    TYPE_NAME = "Notes"
    PROPERTIES = {
        "count": artifact.Property(artifact.PropertyType.INT),
        "share": artifact.Property(artifact.PropertyType.FLOAT),
        "title": artifact.Property(artifact.PropertyType.STRING),
    }


@component
def numbers(
    n: Parameter[int],
    flag: Parameter[str],
    weights: Parameter[list[float]],
    loud: Parameter[bool],
    examples: OutputArtifact[standard_artifacts.Examples],
) -> OutputDict(score=float, name=str, whole=int):
    """Value artifacts of every type, exec properties of every type, an empty folder."""
    os.makedirs(os.path.join(examples.uri, "Split-empty"))
    with open(os.path.join(examples.uri, "seen.json"), "w") as file:
        json.dump({"n": n, "flag": flag, "weights": weights, "loud": loud}, file)
    examples.span = 3
    examples.split_names = '["train"]'
    return {"score": n / 2, "name": f"<{flag}>", "whole": n}


@component
def annotate(examples: InputArtifact[standard_artifacts.Examples], notes: OutputArtifact[Notes]):
    """Metadata of every kind out."""
    assert examples.span == 3, examples.span
    assert os.path.isdir(examples.uri)
    notes.count, notes.share, notes.title = 7, 2.0, "7"
    notes.set_int_custom_property("rows", 12)
    notes.set_float_custom_property("loss", 0.25)
    notes.set_string_custom_property("digits", "12")
    notes.set_json_value_custom_property("shape", [1, {"a": None}])
    # It leaves an empty folder, which no object store keeps.


@component
def read(notes: InputArtifact[Notes], score: float, name: str, whole: int, out: OutputArtifact[standard_artifacts.Model]):
    """Metadata and values of every kind in."""
    assert os.path.isdir(notes.uri)
    seen = {
        "count": notes.count,
        "share": notes.share,
        "title": notes.title,
        "rows": notes.get_int_custom_property("rows"),
        "loss": notes.get_float_custom_property("loss"),
        "digits": notes.get_string_custom_property("digits"),
        "shape": notes.get_json_value_custom_property("shape"),
        "values": [score, name, whole],
    }
    with open(os.path.join(out.uri, "seen.json"), "w") as file:
        json.dump(seen, file)


@component
def takes(threshold: Parameter[float], out: OutputArtifact[standard_artifacts.Model]):
    """An exec property that is another node's value."""
    with open(os.path.join(out.uri, "seen.json"), "w") as file:
        json.dump({"threshold": threshold}, file)


class GatherSpec(types.ComponentSpec):
    """Several artifacts on one input."""

    PARAMETERS = {"sep": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "extra": ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS = {"out": ChannelParameter(type=standard_artifacts.Model)}


class GatherExecutor(base_executor.BaseExecutor):
    """Writes what it was given."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        seen = {key: [json.load(open(os.path.join(a.uri, "seen.json")))["n"] for a in found] for key, found in input_dict.items()}
        target = output_dict["out"][0].uri
        os.makedirs(target, exist_ok=True)
        with open(os.path.join(target, "seen.json"), "w") as file:
            json.dump({**seen, **exec_properties}, file)


class Gather(base_component.BaseComponent):
    """A component class of one's own, with an optional input left out."""

    SPEC_CLASS = GatherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(GatherExecutor)

    def __init__(self, examples: types.BaseChannel) -> None:
        super().__init__(GatherSpec(examples=examples, sep=",", out=types.Channel(standard_artifacts.Model)))


class WatchDriver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Looks at a file in every run."""

    def __init__(self, metadata_handle: Any) -> None:
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: Any) -> driver_output_pb2.DriverOutput:
        result = driver_output_pb2.DriverOutput()
        for key, value in execution_info.exec_properties.items():
            data_types_utils.set_metadata_value(result.exec_properties[key], value)
        content = open(execution_info.exec_properties["path"]).read()
        data_types_utils.set_metadata_value(result.exec_properties["content"], content)
        examples = execution_info.output_dict["examples"][0]
        examples.span = len(content)
        result.output_artifacts["examples"].artifacts.append(examples.mlmd_artifact)
        return result


class WatchSpec(types.ComponentSpec):
    """`content` is the driver's."""

    PARAMETERS = {"path": ExecutionParameter(type=str), "content": ExecutionParameter(type=str, optional=True)}
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class WatchExecutor(base_executor.BaseExecutor):
    """Writes what the driver found."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        examples = output_dict["examples"][0]
        with open(os.path.join(examples.uri, "seen.json"), "w") as file:
            json.dump({"n": 0, "content": exec_properties["content"], "span": examples.span}, file)


class Watch(base_component.BaseComponent):
    """A custom driver."""

    SPEC_CLASS = WatchSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(WatchExecutor)
    DRIVER_CLASS = WatchDriver

    def __init__(self, path: str) -> None:
        super().__init__(WatchSpec(path=path, examples=types.Channel(standard_artifacts.Examples)))


@component
def fails(examples: InputArtifact[standard_artifacts.Examples]):
    """A node that fails."""
    raise ValueError("no such luck")


def constructs(folder: str) -> Pipeline:
    """Returns the pipeline; it watches `folder`/watched.txt and imports `folder`/imported."""
    one = numbers(n=1, flag="x", weights=[0.5, 2.0], loud=True).with_id("one")
    flag = data_types.RuntimeParameter("flag", str, "default")
    two = numbers(n=2, flag=flag, weights=[], loud=False).with_id("two")
    notes = annotate(examples=one.outputs["examples"]).with_id("notes")
    values = {k: one.outputs[k] for k in ("score", "name", "whole")}
    reading = read(notes=notes.outputs["notes"], **values).with_id("reading")
    future = takes(threshold=two.outputs["score"].future().value).with_id("future")
    future.add_upstream_node(reading)
    both = channel.union([one.outputs["examples"], two.outputs["examples"]])
    gather = Gather(both).with_id("Gather.both")
    watch = Watch(f"{folder}/watched.txt").with_id("watch")
    imported = Importer(
        source_uri=f"{folder}/imported",
        artifact_type=standard_artifacts.Examples,
        custom_properties={"origin": "here"},
        properties={"span": 3},
    ).with_id("imported")
    of_imported = annotate(examples=imported.outputs["result"]).with_id("of_imported")
    score = one.outputs["score"].future()[0].value
    with conditional.Cond(score < 1.0):
        if_true = Gather(one.outputs["examples"]).with_id("if_true")
        with conditional.Cond(two.outputs["whole"].future()[0].value == 2):
            if_both = Gather(watch.outputs["examples"]).with_id("if_both")
    with conditional.Cond(score > 1.0):
        if_false = Gather(two.outputs["examples"]).with_id("if_false")
    nodes = [one, two, notes, reading, future, gather, watch, imported, of_imported, if_true, if_both, if_false]
    return Pipeline("constructs", f"{folder}/root", components=nodes, enable_cache=True)


def failing(folder: str) -> Pipeline:
    """Returns a pipeline whose second node fails."""
    one = numbers(n=1, flag="x", weights=[], loud=True).with_id("one")
    two = fails(examples=one.outputs["examples"]).with_id("two")
    three = annotate(examples=one.outputs["examples"]).with_id("three")
    three.add_upstream_node(two)
    return Pipeline("failing", f"{folder}/root", components=[one, two, three], enable_cache=True)
