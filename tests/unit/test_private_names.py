"""What a library does not make public, and every patch of one, stands in `components/compat` alone."""

import ast
import sys

import pytest

from tests.command import REPOSITORY

pytestmark = pytest.mark.core
# Documented, for all their underscores: of named tuples, of `os`.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_exit"}
# Attributes of libraries that are there to be set.
SETTINGS = {"torch.backends.cudnn.allow_tf32", "torch.backends.cuda.matmul.allow_tf32"}
OURS = ("switchyard", "tests", "__future__")


def is_private(name):
    """Whether `name` says that it is not for others; `__x__` is Python's, `_` is no name."""
    hidden = name.startswith("_") and not name.endswith("__") and name != "_"
    return (hidden or name == "internal") and name not in DOCUMENTED


def imports(tree):
    """Yields each import as (line, local name, dotted name)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                whole = each.name if each.asname else each.name.split(".")[0]
                yield node.lineno, each.asname or whole, each.name if each.asname else whole, each.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                full = f"{node.module}.{each.name}"
                yield node.lineno, each.asname or each.name, full, full


def defined(tree):
    """Returns the names that a file gives to what it makes: functions, variables, fields, attributes of `self`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            names |= {node.attr} if node.value.id in ("self", "cls") else set()
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self.__dict__":
            names.add(getattr(node.slice, "value", ""))
    return names


def first_name(node):
    """Returns `a` of `a.b.c`; "" of what begins otherwise."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def uses(tree, place, own_modules):
    """Yields `place:line: what` of private names that are not ours, and of attributes of libraries that are set.

    Args:
        tree: of Python source.
        place: its file, for the message.
        own_modules: function from the name of a module of ours to the names that it defines.
    """
    libraries, own = {}, set(defined(tree))
    for line, local, full, imported in imports(tree):
        top = full.split(".")[0]
        if top in OURS:
            own |= own_modules(full) | own_modules(full.rpartition(".")[0])
            continue
        if top not in sys.stdlib_module_names:
            libraries[local] = full
        if any(map(is_private, imported.split("."))) or imported.startswith("unittest.mock"):
            yield f"{place}:{line}: imports {imported}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_library = first_name(node) in libraries
            if is_private(node.attr) and (of_library or node.attr not in own):
                yield f"{place}:{node.lineno}: {ast.unparse(node)}"
            elif of_library and isinstance(node.ctx, ast.Store | ast.Del) and ast.unparse(node) not in SETTINGS:
                yield f"{place}:{node.lineno}: sets {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "getattr", "hasattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            sets = node.func.id == "setattr" and first_name(node.args[0]) in libraries
            if (is_private(str(name)) and name not in own) or sets:
                yield f"{place}:{node.lineno}: {ast.unparse(node)}"


def test_private_names_of_libraries_are_used_only_in_compat():
    paths = [p for folder in ("components", "pipelines", "switchyard") for p in sorted((REPOSITORY / folder).rglob("*.py"))]
    trees = {p.relative_to(REPOSITORY): ast.parse(p.read_text()) for p in paths}
    own = {".".join(("switchyard", *place.with_suffix("").parts)): defined(tree) for place, tree in trees.items()}
    elsewhere = {place: tree for place, tree in trees.items() if place.parts[:2] != ("components", "compat")}
    assert len(elsewhere) > 300
    found = [use for place, tree in elsewhere.items() for use in uses(tree, place, lambda module: own.get(module, set()))]
    assert not found, "\n".join(["give it a module in components/compat, or use what is public:", *found])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from torch.utils import _pytree", "imports torch.utils._pytree"),
        ("import torch._dynamo.config", "imports torch._dynamo.config"),
        ("from apache_beam.internal import pickler", "imports apache_beam.internal.pickler"),
        ("from unittest import mock", "imports unittest.mock"),
        ("import kfp\nkfp.dsl.component_task = None", "sets kfp.dsl.component_task"),
        ("from tfx import x\nsetattr(x.y, name, 1)", "setattr(x.y, name, 1)"),
        ("from tfx import x\ndel x.y", "sets x.y"),
        ("def f(trainer):\n    trainer._hidden()", "trainer._hidden"),
        ("def f(trainer):\n    return getattr(trainer, '_hidden')", "getattr(trainer, '_hidden')"),
        ("import rich\ndef _hidden(): ...\nrich._hidden", "rich._hidden"),
        ("import atexit\natexit._run_exitfuncs()", "atexit._run_exitfuncs"),
    ],
)
def test_a_private_name_is_found(text, found):
    assert [use.partition(": ")[2] for use in uses(ast.parse(text), "a.py", lambda module: set())] == [found]


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def __init__(self):\n        self._x = 1\ndef f(a):\n    return a._x",
        "import os\nos._exit(0)",
        "from collections import namedtuple\nnamedtuple('A', 'x')(1)._replace(x=2)",
        "import sys\nsys.stdout = None",
        "import torch\ntorch.backends.cudnn.allow_tf32 = False",
        "from switchyard.components.errors import _hidden",
        "for _ in range(3): ...",
    ],
)
def test_our_private_names_and_documented_ones_are_allowed(text):
    assert not list(uses(ast.parse(text), "a.py", lambda module: set()))
