"""Writes `model.pt2` without pickles, and validates it before loading.

`torch.export.load` unpickles sample inputs, constants and weights marked as pickled, evaluates symbolic expressions as Python
and inserts names into source code that it executes. An archive may therefore contain only the output of `save_program`: weights
and constants as raw bytes, and a graph whose names are identifiers and whose operators are PyTorch's own.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export.pt2_archive import PT2ArchiveReader

from switchyard.components.compat.torch_archive import load_current, remove_guards
from switchyard.components.errors import UserError, first_line

MODEL_FILE = "model.pt2"
_MODEL, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_WEIGHTS, _CONSTANTS = ("data/weights/", "weight_"), ("data/constants/", "tensor_")
_CONFIGS = {_WEIGHTS: "data/weights/model_weights_config.json", _CONSTANTS: "data/constants/model_constants_config.json"}
_VERSIONS = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id", ".format_version")
_ABOUT = frozenset((*_VERSIONS, ".storage_alignment", _MODEL, _SAMPLES, *_CONFIGS.values()))
_JSON_BYTES = 256 << 20
# Elements beyond the bytes of the archive: a tensor that was expanded (stride 0) is stored once and may be used whole.
_REPEATED = 64 << 20

# Targets that a graph may call: PyTorch's compute operators; no file access, no Python functions.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.\w+\.\w+|torch\._?sym_\w+|math\.\w+"
    r"|torch\.ops\.higher_order\.(associative_scan|auto_functionalized(_v2)?|cond|flex_attention|hints_wrapper|invoke_subgraph|map_impl"
    r"|out_dtype|scan|strict_mode|tag_activation_checkpoint|while_loop|wrap|wrap_activation_checkpoint|wrap_with_autocast"
    r"|wrap_with_set_grad_enabled)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|lshift|rshift|getitem)"
)
_FORBIDDEN = re.compile(r"torch\.ops\.aten\.(from_file|_print)\b.*|math\.(factorial|comb|perm)")
# Functions in symbolic sizes, SymPy's and PyTorch's: `Mul(Integer(3), Symbol('s17', positive=True, integer=True))`.
_FUNCTION = re.compile(
    r"Add|Mul|Pow|Max|Min|Mod|Integer|Float|Rational|Symbol|Eq|Equality|Ne|Unequality|Lt|StrictLessThan|Le|LessThan|Gt|"
    r"StrictGreaterThan|Ge|GreaterThan|And|Or|Not|floor|ceiling|Abs|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|"
    r"CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|"
    r"IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity"
)
_VALUES = frozenset(("true", "false", "oo", "int_oo"))
_TEXT = re.compile(r"[A-Za-z_]\w{0,40}|[\d.e+-]{1,80}", re.ASCII)
_EXPRESSION_LENGTH, _POWERS, _LARGEST_POWER = 4000, 4, 8


def save_program(program: torch.export.ExportedProgram, path: Path, *, features: int) -> None:
    """Writes an exported program without sample inputs (a pickle), guards (Python source) and stack traces.

    Raises:
        UserError: the archive does not pass `check_archive`.
    """
    program.example_inputs = None
    remove_guards(program)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    torch.export.save(program, path)
    try:
        check_archive(path.read_bytes(), features)
    except ValueError as error:
        raise UserError(
            f"trainer.model: the exported model could not be served: {error}. Use PyTorch's own operators and tensors in forward."
        ) from None


def load_program(path: Path, *, features: int) -> torch.export.ExportedProgram:
    """Loads an exported program that takes the features `f0`, `f1`, ...

    Args:
        path: path of the archive.
        features: number of features.

    Raises:
        UserError: the archive contains data that `save_program` does not write; none of it was executed.
    """
    content = path.read_bytes()
    try:
        check_archive(content, features)
        return load_current(content)
    except (ValueError, RuntimeError, TypeError) as error:  # PyTorch's own, for a tensor that does not fit its bytes
        raise UserError(
            f"model: {path.name} is refused: {first_line(error)}. It was changed, or not made by this version; train again."
        ) from None


def check_archive(content: bytes, features: int) -> None:
    """Raises ValueError for an archive that could do more than compute, see the module docstring."""
    try:
        _check(content, features)
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, AssertionError) as error:
        raise ValueError(f"it is not structured as a PyTorch archive ({type(error).__name__}: {error})"[:300]) from None


def _check(content: bytes, features: int) -> None:
    records = _records(content)
    reader = PT2ArchiveReader(io.BytesIO(content))
    if sorted(reader.get_file_names()) != sorted(records):
        raise ValueError("its table of contents is ambiguous")
    for name, size in records.items():
        _check_record(name, size)
    elements = 0
    for (folder, prefix), config in _CONFIGS.items():
        for entry in _json(reader, records, config)["config"].values():
            elements += _check_payload(entry, folder, prefix, records)
    if elements > len(content) + _REPEATED:
        raise ValueError("its tensors repeat their values more often than memory holds")
    document = _json(reader, records, _MODEL)
    if document.get("guards_code"):
        raise ValueError("it holds guards, which are Python source")
    for key, value in _pairs(document):
        _check_value(key, value)
    _check_calls(document["graph_module"]["module_call_graph"], features)


def _records(content: bytes) -> dict[str, int]:
    """Returns record name, without the archive's folder -> size in bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"it is not an archive ({error})") from None
    folders = {e.filename.partition("/")[0] for e in entries}
    names = [e.filename.partition("/")[2] for e in entries]
    if len(folders) != 1 or len(set(names)) != len(names):
        raise ValueError("it is not an archive of PyTorch's")
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
        raise ValueError("it is compressed")
    if sum(e.file_size for e in entries) > len(content):
        raise ValueError("its records overlap")
    return {name: entry.file_size for name, entry in zip(names, entries, strict=True)}


def _check_record(name: str, size: int) -> None:
    if name == _SAMPLES and size:
        raise ValueError("it holds pickled sample inputs")
    payload = any(re.fullmatch(re.escape(folder + prefix) + r"\d+", name) for folder, prefix in _CONFIGS)
    if name not in _ABOUT and not payload:
        raise ValueError(f"it contains {name[:100]!r}, which is not part of an export")


def _json(reader: PT2ArchiveReader, records: Mapping[str, int], name: str) -> dict[str, Any]:
    if records.get(name, _JSON_BYTES) >= _JSON_BYTES:
        raise ValueError(f"{name} is missing, or too large")
    try:
        found = json.loads(reader.read_bytes(name))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object")
    return found


def _check_payload(entry: Mapping[str, Any], folder: str, prefix: str, records: Mapping[str, int]) -> int:
    """Returns the number of elements of a tensor."""
    name = entry.get("path_name")
    if entry.get("use_pickle") is not False:
        raise ValueError(f"{str(name)[:100]!r} is a pickle")
    if not isinstance(name, str) or not re.fullmatch(prefix + r"\d+", name) or folder + name not in records:
        raise ValueError(f"it refers to {str(name)[:100]!r}, which is not one of its tensors")
    meta = entry["tensor_meta"]
    sizes, strides = ([n.get("as_int") for n in meta[key]] for key in ("sizes", "strides"))
    offset = meta["storage_offset"].get("as_int")
    if not all(type(n) is int and n >= 0 for n in (*sizes, *strides, offset)):
        raise ValueError(f"{name} has no fixed size")
    elements: int = math.prod(sizes)
    # An element has a byte or more. PyTorch fills an empty record with as many zeros as its declared size.
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if elements and last >= records[folder + name]:
        raise ValueError(f"{name} is smaller than its declared size")
    return elements


def _pairs(document: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every key with its value; list items are yielded under the list's key."""
    todo = [(key, document)]
    while todo:
        key, value = todo.pop()
        yield key, value
        if isinstance(value, dict):
            todo += value.items()
        elif isinstance(value, list):
            todo += [(key, v) for v in value]


def _check_value(key: str, value: Any) -> None:
    if key in ("name", "as_name", "graph_name") and isinstance(value, str):
        _check_name(value)
    elif key in ("tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values", "range_constraints", "constants"):
        for name in value:
            _check_name(name)
    elif key in ("target", "as_operator"):
        if not isinstance(value, str) or not _OPERATOR.fullmatch(value) or _FORBIDDEN.fullmatch(value):
            raise ValueError(f"it calls {str(value)[:100]!r}, which is not an allowed operator")
    elif key == "expr_str":
        if not _is_size(value):
            raise ValueError(f"its expression {str(value)[:100]!r} is not allowed")
    elif key in ("custom_obj_values", "as_custom_obj", "custom_obj") and value:
        raise ValueError("it contains a class instance")


def _is_size(text: Any) -> bool:
    """Returns whether a text, which PyTorch passes to Python's `eval`, is a pure computation."""
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= _EXPRESSION_LENGTH else None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    powers = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and "Pow" in n.id] if tree else []
    return tree is not None and len(powers) <= _POWERS and _computes(tree.body)


def _computes(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int | float) or (isinstance(node.value, str) and bool(_TEXT.fullmatch(node.value)))
    if isinstance(node, ast.Name):
        return node.id in _VALUES or bool(re.fullmatch(r"[suz][a-z]{0,3}\d+", node.id))
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _computes(node.operand)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not _FUNCTION.fullmatch(node.func.id):
        return False
    if ("Pow" in node.func.id or node.func.id == "LShift") and not (len(node.args) == 2 and _is_small(node.args[1])):
        return False
    arguments = [*node.args, *(k.value for k in node.keywords)]
    return all(_computes(a) for a in arguments) and all(k.arg for k in node.keywords)


def _is_small(node: ast.expr) -> bool:
    """Returns whether the node is a number small enough for an exponent, such as `Integer(2)`."""
    found = re.fullmatch(r"(?:Integer|Float)?\(?'?(-?\d+(?:\.\d+)?)'?(?:, precision=\d+)?\)?", ast.unparse(node))
    return found is not None and abs(float(found[1])) <= _LARGEST_POWER


def _check_name(name: str) -> None:
    if name and not (name.isascii() and name.isidentifier()):
        raise ValueError(f"its name {name[:100]!r} is not an identifier")


_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def _node(kind: str, *children: dict[str, Any], keys: list[str] | None = None) -> dict[str, Any]:
    """Returns a tuple's or dict's part of a call signature in the archive's format."""
    return {"type": f"builtins.{kind}", "context": json.dumps(keys), "children_spec": list(children)}


def _check_calls(calls: list[dict[str, Any]], features: int) -> None:
    """Validates the call signature, which is inserted into generated source: one dict `f0`, `f1`, ... in, one tensor out."""
    signatures = [c["signature"] for c in calls if c.get("signature")]
    if len(signatures) != 1:
        raise ValueError("it must have exactly one call signature")
    signature = signatures[0]
    by_place = _node("dict", *[_LEAF] * features, keys=[f"f{i}" for i in range(features)])
    taken = _node("tuple", _node("tuple", by_place), _node("dict", keys=[]))
    if [signature["in_spec"], signature["out_spec"]] != [json.dumps([1, taken]), json.dumps([1, _LEAF])]:
        raise ValueError("it does not take the features by position")
    for name in signature.get("forward_arg_names") or []:
        _check_name(name)
