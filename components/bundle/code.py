"""Loads a bundle's predictor: of a framework, or a class in a Python file of the bundle's `code/`.

No other reference is imported: no absolute path, no `..`, no installed module. A user's trainer is copied into `code/` with
the modules of its package that it imports.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.process import variables
from switchyard.components.user_code.loading import DEPENDENCIES, admit_bundled, file_of, is_file, load_function

FOLDER = "code"
# Framework -> its predictor, which loads the trainer's export without the trainer's imports.
PREDICTORS = {
    "tensorflow": "switchyard.components.training.tensorflow.predictor:TensorflowPredictor",
    "pytorch": "switchyard.components.training.pytorch.predictor:PytorchPredictor",
    "lightgbm": "switchyard.components.training.lightgbm.predictor:LightgbmPredictor",
}
# The package that a serving image of another framework lacks.
_PACKAGES = {"tensorflow": "tensorflow", "pytorch": "torch", "lightgbm": "lightgbm"}
_REFERENCE = re.compile(r"(?P<module>[A-Za-z_]\w*(?:/[A-Za-z_]\w*)*)\.py:(?P<name>[A-Za-z_]\w*)", re.ASCII)


def load_predictor_class(bundle: Path, predictor: str) -> Any:
    """Returns the class that `predictor` names; it has `load_predictor`.

    Raises:
        UserError: `predictor` is neither a framework nor a class in `code/`, or the code cannot be imported.
    """
    if predictor in PREDICTORS:
        _check_image(predictor)
        module, _, name = PREDICTORS[predictor].partition(":")
        return getattr(importlib.import_module(module), name)
    found = _REFERENCE.fullmatch(predictor)
    file = bundle / FOLDER / f"{found['module']}.py" if found else None
    if found is None or file is None or not file.is_file() or not file.resolve().is_relative_to((bundle / FOLDER).resolve()):
        raise UserError(
            f"model: bundle.json names the predictor {predictor[:200]!r}; allowed: {', '.join(PREDICTORS)}, or a class in its "
            f"{FOLDER}/, such as my_trainer.py:MyTrainer. Train again."
        )
    parts = found["module"].split("/")
    admit_bundled(bundle / FOLDER, "model")
    if len(parts) == 1:
        return load_function(str(file), found["name"])
    return _from_package(bundle / FOLDER, parts, found["name"])


def _check_image(framework: str) -> None:
    """Raises UserError in a serving image that lacks a framework."""
    serves = os.environ.get(variables.SERVES)
    if serves and importlib.util.find_spec(_PACKAGES[framework]) is None:
        raise UserError(
            f"model: it is, or has a member, of {framework}, and this image, switchyard-serving for {serves}, serves no such "
            f"models; use the image of `make image-serving FRAMEWORK={framework}`, or that of `make image`, which serves all"
        )


def _from_package(code: Path, parts: list[str], name: str) -> Any:
    """Returns an attribute of a bundled package, imported under a unique name to avoid conflicts with installed packages."""
    root = "_bundle_" + re.sub(r"\W", "_", str(code.resolve()))
    if root not in sys.modules:
        package = ModuleType(root)
        package.__path__ = [str(code)]
        sys.modules[root] = package
    if str(code) not in sys.path:
        sys.path.append(str(code))  # for the package's absolute imports of its own modules
    try:
        found: Any = getattr(importlib.import_module(".".join((root, *parts))), name)
    except Exception as error:  # the user's code can raise any type
        raise UserError(f"model: {FOLDER}/{'/'.join(parts)}.py: {type(error).__name__}: {error}") from error
    return found


def bundled_code(framework: str, trainer: type | None) -> tuple[str, Mapping[str, Path]]:
    """Returns a trainer's predictor reference for `bundle.json`, and the files for `code/`: name -> file.

    Args:
        framework: the config's value: a framework, `FILE.py:Class` or `package.module:Class`.
        trainer: the trainer's class; None for a built-in trainer.

    Raises:
        UserError: the trainer's source cannot be found.
    """
    if trainer is None:
        return framework, {}
    if is_file(framework):
        file = file_of(framework)
        files = (f for f in file.parent.rglob("*") if f.is_file() and "__pycache__" not in f.parts and f.name != DEPENDENCIES)
        return f"{file.name}:{trainer.__name__}", {f.relative_to(file.parent).as_posix(): f for f in files}
    source = getattr(sys.modules[trainer.__module__], "__file__", None)
    if source is None or not source.endswith(".py"):
        raise UserError(
            f"trainer.framework: the source of {framework!r} cannot be found, and a bundle needs a copy of it; use a "
            "trainer in a Python file."
        )
    parts = trainer.__module__.split(".")
    if Path(source).name == "__init__.py":
        parts.append("__init__")
    root = Path(source).parents[len(parts) - 1]
    return f"{'/'.join(parts)}.py:{trainer.__name__}", {f.relative_to(root).as_posix(): f for f in _package_files(root, parts)}


def _package_files(root: Path, parts: list[str]) -> set[Path]:
    """Returns a module's file and, recursively, the files of its own package that it imports."""
    done: set[Path] = set()
    todo = [root.joinpath(*parts).with_suffix(".py")]
    while todo:
        file = todo.pop()
        if file in done:
            continue
        done.add(file)
        place = file.relative_to(root).parent
        todo += [f for p in (place, *place.parents) if p.parts and (f := root / p / "__init__.py").is_file()]
        for name in _own_imports(file, place.parts, parts[0]):
            base = root.joinpath(*name)
            todo += [f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()]
    return done


def _own_imports(file: Path, package: tuple[str, ...], top: str) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
        if isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")) for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            found |= {base, *((*base, a.name) for a in node.names)}
    return {name for name in found if name[:1] == (top,)}
