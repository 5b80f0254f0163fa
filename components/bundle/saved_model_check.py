"""Checks, before TensorFlow loads a SavedModel, that its graph holds only pure computation.

TensorFlow's operations can read and write files, run Python and open connections; a changed graph may hold any of them.
Allowed are the operations that TensorFlow declares stateless, except those with effects outside the graph, and a list of
stateful operations that models need. Only dedicated functions may save and restore variables or read vocabularies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError

# Stateless by declaration, but with access to files, sockets, Python or other processes, or able to abort this process.
_REACHES_OUT = re.compile(
    r"_.*|.*(Dataset|Iterator|File|Reader|Summary|PyFunc|Debug|Remap|Rpc|Remote|Print|Send|Recv|Infeed|Outfeed|Custom"
    r"|Proto|Candidate|Collective|Nccl|TPU|Dedup|DTensor|XlaSparse|Prelinearize).*"
    r"|ImmutableConst|Abort|Copy(Host|Op|ToMesh)?|MatchingFiles|HostConst"
)
_WITH_STATE = re.compile(
    r"Assert|(Assign|AssignAdd|AssignSub|Read)VariableOp|VarHandleOp|VarIsInitializedOp|VariableShape|DisableCopyOnRead|DestroyResourceOp"
    r"|If|While|Case|StatefulPartitionedCall|CheckNumerics(V2)?|GuaranteeConst|Empty|DeviceIndex|IsTensorFloat32Enabled"
    r"|(Anonymous)?(Mutable|MutableDense)?HashTable(OfTensors)?(V2)?|LookupTable(Find|Insert|Import|Export|Remove|Size)(V2)?"
    r"|InitializeTable(V2)?|Resource(Gather|GatherNd|Scatter\w+|StridedSliceAssign)"
    r"|Random\w+|Stateful(Uniform|UniformInt|UniformFullInt|StandardNormalV2|TruncatedNormal|RandomBinomial)|TruncatedNormal"
    r"|Multinomial|ParameterizedTruncatedNormal|RngSkip|RngReadAndSkip|NonDeterministicInts|StatelessRandomGetAlg"
    r"|TensorArray\w*V3|TensorArrayGradWithShape|StackV2|StackPushV2|StackPopV2|StackCloseV2|CudnnRNN(V2|V3)?"
)
_READS_VOCABULARY = "InitializeTableFromTextFileV2"
_SAVES = frozenset(("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"))
# Operations allowed in a function that reads a vocabulary.
_AROUND_VOCABULARY = frozenset((_READS_VOCABULARY, "StatefulPartitionedCall", "PartitionedCall", "Identity", "NoOp", "Const"))
_STRING, _LARGEST = 7, 1 << 30


def check_saved_model(folder: Path) -> None:
    """Raises UserError for a SavedModel with operations beyond pure computation; does not load it."""
    try:
        _check(folder)
    except ValueError as error:
        raise UserError(
            f"model: the SavedModel {folder.name}/ is refused: {error}. It was changed, or user code made it: then use the "
            "version in the registry, whose digest verifies it."
        ) from None


def _check(folder: Path) -> None:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    if not file.is_file() or file.stat().st_size > _LARGEST:
        raise ValueError("saved_model.pb is missing, or too large")
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ValueError(f"saved_model.pb cannot be read ({error})") from None
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].HasField("object_graph_def"):
        raise ValueError("it does not contain exactly one TensorFlow 2 graph")
    graph = model.meta_graphs[0]
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    named = {name: _named(function) for name, function in functions.items()}
    saving = _with_callers(named, _SAVES)
    reading = _with_callers(named, {_READS_VOCABULARY})
    for name, nodes in (("", graph.graph_def.node), *((n, f.node_def) for n, f in functions.items())):
        for node in nodes:
            _check_operation(node.op, functions, saves=name in saving, reads=name in reading)
    _check_saving(graph, saving)
    _check_reading(graph, {n: functions[n] for n in reading})
    for asset in graph.asset_file_def:
        if not re.fullmatch(r"[\w.-]+", asset.filename) or asset.filename in (".", ".."):
            raise ValueError(f"it reads the file {asset.filename[:100]!r}")


def _check_operation(op: str, functions: Mapping[str, Any], *, saves: bool, reads: bool) -> None:
    from tensorflow.python.framework import op_def_registry

    if op in functions or (saves and op in _SAVES) or (reads and op == _READS_VOCABULARY):
        return
    known = op_def_registry.get(op)
    if known is None:
        raise ValueError(f"it has the operation {op!r}, which is unknown to TensorFlow")
    allowed = _WITH_STATE.fullmatch(op) if known.is_stateful else not _REACHES_OUT.fullmatch(op)
    if not allowed:
        raise ValueError(f"it has the operation {op!r}, which may reach files, processes or the network")


def _with_callers(named: Mapping[str, set[str]], operations: Iterable[str]) -> set[str]:
    """Returns the functions that name one of the operations (see `_named`), and their direct and indirect callers."""
    wanted = set(operations)
    while True:
        more = {name for name, names in named.items() if name not in wanted and not wanted.isdisjoint(names)}
        if not more:
            return wanted & named.keys()
        wanted |= more


def _named(function: Any) -> set[str]:
    """Returns a function's operations and the functions among their attributes."""
    found = set()
    for node in function.node_def:
        found.add(node.op)
        for attribute in node.attr.values():
            kind = attribute.WhichOneof("value")
            if kind == "func":
                found.add(attribute.func.name)
            elif kind == "list":
                found.update(f.name for f in attribute.list.func)
    return found


def _check_saving(graph: Any, saving: set[str]) -> None:
    """Raises ValueError if a callable function saves or restores variables."""
    used = {c for n in graph.object_graph_def.nodes for c in n.function.concrete_functions}
    found = sorted((used | set(graph.object_graph_def.concrete_functions)) & saving)
    if found:
        raise ValueError(f"its function {found[0]!r} reads or writes checkpoints")


def _check_reading(graph: Any, functions: Mapping[str, Any]) -> None:
    """Raises ValueError if a function reads a vocabulary from anywhere but the SavedModel's own assets."""
    for name, function in functions.items():
        for node in function.node_def:
            text = node.op == "Const" and node.attr["dtype"].type == _STRING
            if text or node.op not in _AROUND_VOCABULARY | functions.keys():
                raise ValueError(f"its function {name!r} reads a file other than its vocabularies")
        concrete = graph.object_graph_def.concrete_functions.get(name)
        for i in concrete.bound_inputs if concrete is not None else ():
            if graph.object_graph_def.nodes[i].WhichOneof("kind") not in ("asset", "resource"):
                raise ValueError(f"its function {name!r} reads a file other than its vocabularies")
    names = functions.keys()
    for node in graph.object_graph_def.nodes:
        for name in {*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name} & names:
            spec = graph.object_graph_def.concrete_functions[name].canonicalized_input_signature
            if any(v.tuple_value.values or v.dict_value.fields for v in spec.tuple_value.values):
                raise ValueError(f"its function {name!r} reads a file that the caller chooses")
