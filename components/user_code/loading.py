"""Snapshots the user's Python files by content, so that a run keeps its code and a change invalidates the cache.

A snapshot holds the file, the files of its folder that it imports directly or indirectly, the data files that these name, and
the config's `files`. No other file of the folder affects a stage's cache key.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from switchyard.components.errors import UserError, error_chain, in_one_line, text_of
from switchyard.components.user_code.dependencies import check_installed, imported_names
from switchyard.components.user_code.files import named_files
from switchyard.components.user_code.store import read, stored

# File of a snapshot with the config's `dependencies`, one a line. A bundle has them as MLflow's requirements instead.
DEPENDENCIES = "switchyard_dependencies.txt"

# Folders that users' code was loaded from in this process.
_folders: set[str] = set()


@dataclass(frozen=True)
class UserCode:
    """A user's function: path of its file in the snapshot, and its name."""

    path: str
    function: str

    def load(self) -> Callable[..., Any]:
        """Imports the file and returns the function.

        Raises:
            UserError: the import fails or the function does not exist; the message has the file and line.
        """
        return load_function(self.path, self.function)


def split_reference(reference: str, default_function: str) -> tuple[Path, str]:
    """Returns the file and function of `file.py:function`, with the default function when none is named."""
    file, colon, function = reference.rpartition(":")
    if colon and file.endswith(".py"):
        return Path(file), function
    return Path(reference), default_function


def snapshot(
    reference: str,
    default_function: str,
    store: Path,
    *,
    key: str,
    files: Sequence[Path] = (),
    dependencies: Sequence[str] = (),
) -> UserCode:
    """Copies the code of `reference` to `store/<hash>/`, unless it exists, and returns its location.

    Args:
        reference: `file.py` or `file.py:function`, absolute.
        default_function: function when `reference` names none.
        store: folder of snapshots.
        key: config key for the error.
        files: the config's `files`; those in the code's folder are copied too.
        dependencies: the config's `dependencies`; a change of one is a change of the code.

    Raises:
        UserError: the file does not exist or is not Python.
    """
    path, function = split_reference(reference, default_function)
    closure = _closure(path, key)
    for file in closure:
        if file.suffix == ".py":
            _refuse_taken_name(file, path.parent, store, key)
    copied = sorted(closure | {f for f in files if f.is_relative_to(path.parent)})
    listed = "".join(f"{package}\n" for package in sorted(dependencies))
    contents: dict[str, Path | bytes] = {str(file.relative_to(path.parent)): file for file in copied}
    target = stored(contents | ({DEPENDENCIES: listed.encode()} if listed else {}), store, key)
    return UserCode(str(target / path.name), function)


def imported_files(path: Path, key: str) -> set[Path]:
    """Returns a Python file and the files of its folder that it imports, directly or indirectly.

    Raises:
        UserError: the file does not exist, or a file is not Python.
    """
    root, todo, done = path.parent, [path], set[Path]()
    while todo:
        file = todo.pop()
        if file in done:
            continue
        done.add(file)
        for name in imported_names(_parse(file, key)):
            base = root.joinpath(*name.split("."))
            todo += [c for c in (base.with_suffix(".py"), base / "__init__.py") if c.is_file()]
    return done


def _refuse_taken_name(file: Path, folder: Path, store: Path, key: str) -> None:
    """Raises UserError for a file that shadows an installed module: `keras.py` would replace Keras in the whole process."""
    name = file.relative_to(folder).parts[0].removesuffix(".py")
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec
        return
    origin = spec.origin if spec else None
    users = (folder, folder.resolve(), store, store.resolve(), *map(Path, _folders))
    if origin and not any(Path(origin).is_relative_to(place) for place in users):
        raise UserError(
            f"{key}: {file}: {name!r} is also an installed module ({origin}), which it would shadow. Rename the file."
        )


def _closure(path: Path, key: str) -> set[Path]:
    files = imported_files(path, key)
    return files.union(*(named_files(f, _parse(f, key), path.parent, key) for f in files))


def _parse(file: Path, key: str) -> ast.Module:
    try:
        return ast.parse(read(file, key), filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", "?")
        raise UserError(f"{key}: {file}, line {line}: not valid Python: {getattr(error, 'msg', error)}") from None


def admit_bundled(code: Path, key: str) -> None:
    """Checks a bundle's folder of user code before any of it is imported.

    Raises:
        UserError: a file or folder in it has the name of a module of Python or of Switchyard.
    """
    for taken in {p.stem for p in code.iterdir()} & (sys.stdlib_module_names | {"switchyard"}):
        raise UserError(f"{key}: {code.name}/{taken} would shadow a module of Python or Switchyard. Rename it and train again.")
    # Bytecode files beside the code would not be in the manifest.
    sys.dont_write_bytecode = True


def load_function(path: str, function: str) -> Callable[..., Any]:
    """See `UserCode.load`."""
    folder, name = os.path.dirname(path), Path(path).stem
    if os.path.exists(listed := os.path.join(folder, DEPENDENCIES)):
        check_installed(Path(listed).read_text(encoding="utf-8").split())
    _make_room(folder)
    module = sys.modules.get(name)
    if module is None or getattr(module, "__file__", None) != path:
        with blamed(f"{os.path.basename(path)}: ", folder, _hint):
            module = _imported(name, path)
    found: Callable[..., Any] | None = getattr(module, function, None)
    if not callable(found):
        raise UserError(f"{os.path.basename(path)}: has no function {function!r}. Define `def {function}(...)` in it.")
    return found


def _imported(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _hint(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return ". The code runs in a copy of its folder; list the files that it opens in the YAML: files: [...]"
    if isinstance(error, ModuleNotFoundError):
        return ". Install the package, and list it in the YAML: switchyard dependencies add PACKAGE --pipeline PIPELINE"
    return ". Remove the call that ends the process" if isinstance(error, SystemExit) else ""


def _make_room(folder: str) -> None:
    """Moves a folder to the front of `sys.path` and unloads modules of the same names from other user folders.

    Two bundles in one process (a candidate and the champion) may each have a `helpers.py`.
    """
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    for other in _folders - {folder}:
        for file in Path(folder).glob("*.py"):
            loaded = getattr(sys.modules.get(file.stem), "__file__", None)
            if loaded and os.path.dirname(loaded) == other:
                del sys.modules[file.stem]
    _folders.add(folder)


def where(error: BaseException, folder: str) -> str:
    """Returns `m.py, line 12: KeyError: 'x'` in one line: the location is the innermost frame in the user's folder."""
    place = _place(error, folder)
    return f"{place}: {in_one_line(error)}" if place else in_one_line(error)


def _place(error: BaseException, folder: str) -> str:
    """Returns file and line of the user's code that caused an error; empty when the trace has none of it."""
    if not folder:
        return ""
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(folder + os.sep):
        return f"{os.path.basename(error.filename or '')}, line {error.lineno}"
    own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(folder + os.sep)]
    if own:
        return f"{os.path.basename(own[-1].filename)}, line {own[-1].lineno}"
    # TensorFlow runs a translation of the code and puts the original location into the message.
    places = re.findall(rf'File "{re.escape(folder + os.sep)}([^"]+)", line (\d+)', text_of(error))
    return f"{os.path.basename(places[-1][0])}, line {places[-1][1]}" if places else ""


@contextmanager
def blamed(message: str, folder: str, hint: Callable[[BaseException], str] = lambda _: "") -> Iterator[None]:
    """Context manager that turns any exception of the user's code, SystemExit included, into a UserError with its location.

    Args:
        message: text before the location and the error, for example `trainer.model: build_model failed: `.
        folder: folder of the code.
        hint: returns the text after the error.

    Raises:
        UserError: see above.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"{message}{where(error, folder)}{hint(error)}") from error


def users_error(error: BaseException | None, *, directly: bool = False) -> str:
    """Returns `m.py, line 12: KeyError: 'x'` when loaded user code caused an error; otherwise "".

    Args:
        error: the error, whose chain of causes is searched.
        directly: True to require that the user's code raised the error itself, not a library that it called.
    """
    for seen in error_chain(error):
        for folder in _folders:
            innermost = traceback.extract_tb(seen.__traceback__)[-1:]
            if directly and not (innermost and innermost[0].filename.startswith(folder + os.sep)):
                continue
            if _place(seen, folder):
                return where(seen, folder)
    return ""


def folder_of(function: Any) -> str:
    """Returns the folder that a function or class was loaded from; empty when it has no file."""
    function = inspect.unwrap(getattr(function, "func", function))
    try:
        return os.path.dirname(
            inspect.getfile(function if inspect.isroutine(function) or inspect.isclass(function) else type(function))
        )
    except (TypeError, OSError):
        return ""


def snapshot_file(path: Path, store: Path, *, key: str) -> Path:
    """Copies one file to a name with the hash of its content and returns the new path.

    Raises:
        UserError: the file cannot be read.
    """
    content = read(path, key)
    store.mkdir(parents=True, exist_ok=True)
    target = store / f"{path.stem}-{hashlib.sha256(content).hexdigest()[:16]}{path.suffix}"
    if not target.exists():
        temporary = target.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(content)
        os.replace(temporary, target)
    return target


def is_file(framework: str) -> bool:
    """Returns whether the trainer is a user's Python file."""
    return framework.rpartition(":")[0].endswith(".py")


def file_of(framework: str) -> Path:
    """Returns the path of the user's Python file."""
    return Path(framework.rpartition(":")[0])
