"""The optional functions of the user's model file beside `build_model(spec)`; they replace the keys of the config named here."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.metrics import trained_names
from switchyard.components.user_code.loading import blamed, folder_of

# Hook -> the hyperparameters that do not apply with it.
HOOKS: dict[str, tuple[str, ...]] = {
    "build_loss": ("label_smoothing",),
    "build_optimizer": ("optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay", "clip_norm"),
    "build_callbacks": (),
    "build_metrics": (),
}


# The names that a training reports itself.
TAKEN = frozenset({"loss", "steps", "best_epoch", "best_val_loss", *(name.removeprefix("val_") for name in trained_names())})


@dataclass(frozen=True)
class Hooks:
    """The user's functions as trainers receive them; each is None without one. `build_loss` arrives as the request's loss.

    Attributes:
        build_optimizer: `build_optimizer(model, spec)` returns the framework's optimizer of a model's weights; in PyTorch also
            what Lightning's `configure_optimizers` may return for one optimizer: a dict with `optimizer` and `lr_scheduler`.
        build_callbacks: `build_callbacks(spec)` returns a list of the framework's callbacks (Keras, Lightning).
        build_metrics: `build_metrics(spec)` returns a dict of name to the framework's metric (Keras, torchmetrics), measured on
            both splits of each epoch from labels and predictions, see `metrics`.
    """

    build_optimizer: Callable[..., Any] | None = None
    build_callbacks: Callable[..., Any] | None = None
    build_metrics: Callable[..., Any] | None = None

    def optimizer(self, model: Any, spec: Any, kind: type | tuple[type, ...]) -> Any:
        """Returns the user's optimizer, or None without a function; raises UserError if it fails or returns no `kind`."""
        if self.build_optimizer is None:
            return None
        with blamed("trainer.model: build_optimizer failed: ", folder_of(self.build_optimizer)):
            made = self.build_optimizer(model, spec)
        if not isinstance(made, kind):
            raise UserError(
                f"trainer.model: build_optimizer must return an optimizer, received {type(made).__name__}; return one"
            )
        return made

    def callbacks(self, spec: Any, kind: type) -> list[Any]:
        """Returns the user's callbacks; raises UserError if the function fails or returns no list of `kind`."""
        if self.build_callbacks is None:
            return []
        with blamed("trainer.model: build_callbacks failed: ", folder_of(self.build_callbacks)):
            made = self.build_callbacks(spec)
        if not isinstance(made, list | tuple) or not all(isinstance(callback, kind) for callback in made):
            raise UserError(f"trainer.model: build_callbacks must return a list of {kind.__name__}s, received {made!r}"[:500])
        return list(made)

    def metrics(self, spec: Any, kind: type) -> dict[str, Any]:
        """Returns the user's metrics by name, new ones at each call.

        A metric is updated with labels (B,), int64 class indices or float32 values, (B, labels) of several columns, (B, 3) of a
        ranking, (B, *label_shape) of a `custom` task, and predictions: the positive class's probability (B,), the classes' (B,
        classes), the labels' (B, labels), the value (B,), the quantiles' (B, quantiles), or the output (B, *output_shape). In
        Keras (B, 1) is in place of (B,), except labels of several classes and of a `custom` task. It weighs all rows of a sample
        weight above 0 the same.

        Raises:
            UserError: the function fails, returns no dict of `kind`, or a name that is taken.
        """
        if self.build_metrics is None:
            return {}
        with blamed("trainer.model: build_metrics failed: ", folder_of(self.build_metrics)):
            made = self.build_metrics(spec)
        if not isinstance(made, dict) or not all(isinstance(m, kind) and isinstance(n, str) for n, m in made.items()):
            raise UserError(
                f"trainer.model: build_metrics must return a dict of name to {kind.__name__}, received {made!r}"[:500]
            )
        for name in made:
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or name.removeprefix("val_") in TAKEN or name.startswith("val_"):
                raise UserError(
                    f"trainer.model: build_metrics: {name!r} is no name for a metric; use letters, digits and _, none of "
                    f"{', '.join(sorted(TAKEN))}, no val_ in front"
                )
        if spec.output_shape and spec.label_shape is None:
            raise UserError("trainer.model: build_metrics measures labels, and the task has none; remove it")
        return made


NO_HOOKS = Hooks()


def hooks_in(path: str | Path | None) -> tuple[str, ...]:
    """Returns the hooks that a Python file defines or imports at its top level, without importing it; none without a file.

    What `from module import *` imports is known for the modules of the file's folder.
    """
    names = _names(Path(path), set()) if path else set()
    return tuple(hook for hook in HOOKS if hook in names)


def _names(path: Path, seen: set[Path]) -> set[str]:
    names: set[str] = set()
    seen.add(path)
    for node in _top_level(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            module = path.parent.joinpath(*(node.module or "").split("."))
            files = {module.with_suffix(".py"), module / "__init__.py"} - seen
            names |= {name for file in files if file.is_file() for name in _names(file, seen) if not name.startswith("_")}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            names.add(node.target.id)
    return names


def _top_level(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yields a module's statements, also those below `if`, `try` and `with`."""
    for node in statements:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            yield from _top_level(ast.iter_child_nodes(node))


# Settings in whose place the training of a compiled Keras model or of a LightningModule is.
OF_OWN_TRAINING = ("loss", *HOOKS["build_optimizer"], *HOOKS["build_loss"])


def may_train_itself(path: str | Path | None) -> bool:
    """Returns whether a file, or a module of its folder that it imports, mentions `.compile` or LightningModule.

    Its model may have a training of its own.
    """
    return path is not None and not {"compile", "LightningModule"}.isdisjoint(_mentioned(Path(path), Path(path).parent, set()))


def _mentioned(path: Path, root: Path, seen: set[Path]) -> Iterator[str]:
    """Yields the names and attributes of a file and of the modules that it imports from its folder or from `root`."""
    seen.add(path)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from names
            package = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            modules = [*package, *(".".join([*package, name]) for name in names)]
            for base in (folder.joinpath(*module.split(".")) for module in modules for folder in {root, path.parent}):
                for file in (base.with_suffix(".py"), base / "__init__.py"):
                    if file not in seen and file.is_file():
                        yield from _mentioned(file, root, seen)


def replaced(hooks: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the hyperparameters that do not apply with these hooks."""
    return tuple(name for hook in hooks for name in HOOKS[hook])


def check_hooks(
    path: str | Path,
    *,
    loss: str | None,
    callbacks: str | None = None,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    searched: Mapping[str, Any],
) -> None:
    """Refuses settings that a hook of the user's model file would replace.

    Args:
        path: the model file.
        loss: the config's `trainer.loss`.
        callbacks: the config's `trainer.callbacks`.
        given: the config's hyperparameters.
        defaults: their defaults, which are no setting.
        searched: the search space of `tune`.

    Raises:
        UserError: names the key and the hook.
    """
    file = Path(path).name
    hooks = hooks_in(path)
    if loss is not None and "build_loss" in hooks:
        raise UserError(f"trainer.loss: {file} has build_loss, which sets the loss; remove one of them")
    if callbacks is not None and "build_callbacks" in hooks:
        raise UserError(f"trainer.callbacks: {file} has build_callbacks, too; remove one of them")
    for hook in hooks:
        for name in HOOKS[hook]:
            key = "tune.space" if name in searched else "trainer.hyperparameters"
            if name in searched or given[name] != defaults[name]:
                raise UserError(f"{key}.{name}: {file} has {hook}, which does not follow it; remove one of them")
