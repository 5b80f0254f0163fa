"""Loads a PipelineConfig with absolute paths from a pipeline's YAML and the command line's overrides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from switchyard.components.errors import UserError
from switchyard.components.text.redaction import mask, names_a_secret, remember
from switchyard.components.training.config import is_code
from switchyard.components.training.huggingface import HuggingFaceModel
from switchyard.pipelines.config.document import LIMIT_BYTES, LIMIT_DEPTH, ConfigYamlError, is_text, read_yaml
from switchyard.pipelines.config.errors import explain
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.spelling import Spelled, resolve


def load_config(
    path: str | os.PathLike[str] | None,
    *,
    document: Mapping[str, Any] | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    base: Path | None = None,
) -> PipelineConfig:
    """Reads and validates a pipeline's YAML.

    Args:
        path: the YAML file; None when `document` is the whole config.
        document: values that the file overrides (CLI options that form a config without a YAML).
        overrides: applied last: key -> value, as in `{"trainer.hyperparameters.epochs": 3}`, or texts `KEY=VALUE` with the value
            in YAML.
        base: folder that relative paths start from; default: the YAML's.

    Raises:
        UserError: names the key, the value received and what is allowed.
    """
    path = Path(path) if path is not None else None
    data = _read(path) if path else {}
    merged: dict[str, Any] = {**(document or {}), **data}
    for key, value in overrides.items() if isinstance(overrides, Mapping) else map(_read_override, overrides):
        _override(merged, key, value)
    where = str(path) if path else "the command line"
    try:
        merged = resolve(merged, PipelineConfig)
    except UserError as problem:
        raise UserError(f"{where}: {problem}") from None
    _refuse_no_texts(merged, where)
    try:
        config = PipelineConfig.model_validate(merged)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, PipelineConfig)}") from None
    for beam in filter(None, (config.beam, config.kubeflow.beam)):
        for name, value in beam.options.items():
            if names_a_secret(name):
                remember(str(value))
    return _absolute(config, base or (path.parent if path else Path.cwd()))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            # Reading one extra byte detects a larger file, including an endless device.
            content = file.read(LIMIT_BYTES + 1)
        loaded = read_yaml(content.decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give a pipeline's YAML; `switchyard init` writes one.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the pipeline's YAML file, for example {path / 'pipeline.yaml'}") from None
    except PermissionError:
        raise UserError(f"{path}: not allowed to read it. Check its permissions.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save the YAML as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}. Check the path.") from None
    except ConfigYamlError as problem:
        raise UserError(f"{path}: {problem}") from None
    if not isinstance(loaded, dict):
        kind = type(loaded.value if isinstance(loaded, Spelled) else loaded).__name__
        raise UserError(f"{path}: must hold a mapping (name: ..., data: ..., label: ...), received {kind}")
    return loaded


def _read_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise UserError(f"--set {_short(override)}: must be key=value, for example trainer.hyperparameters.learning_rate=0.01")
    try:
        return key.strip(), read_yaml(text)
    except ConfigYamlError as problem:
        example = mask(f"{key}='\"{text}\"'")
        hint = f" (quote text that is not valid YAML: {example})" if len(example) < 80 and text.isprintable() else ""
        raise UserError(f"--set {_short(override)}: value: {problem.why}{hint}") from None


def _override(document: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    if not all(parts):
        raise UserError(f"overrides: {_short(key)}: must be a key, for example trainer.hyperparameters.learning_rate")
    if len(parts) > LIMIT_DEPTH:
        raise UserError(f"--set {_short(key)}: the key is nested deeper than {LIMIT_DEPTH} levels")
    node = document
    for part in parts[:-1]:
        child = node.get(part)
        # Replace short forms such as `accelerator: gpu` by their long form.
        short = {"accelerator": "kind", "on_anomaly": "error"}
        node[part] = dict(child) if isinstance(child, dict) else {short[part]: child} if part in short and child else {}
        node = node[part]
    node[parts[-1]] = value


def _short(text: str) -> str:
    text = mask(text)
    return repr(text if len(text) < 200 else f"{text[:200]}...")


def _refuse_no_texts(value: Any, where: str) -> None:
    """Refuses invalid texts, including those from the command line, whose bytes may be arbitrary."""
    if isinstance(value, str) and not is_text(value):
        raise UserError(f"{where}: {_short(value)}: is not UTF-8 text without NUL; rename or convert it")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_no_texts(key, where)
            _refuse_no_texts(inner, f"{where}: {key[:100]}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_no_texts(inner, where)


def _absolute(config: PipelineConfig, base: Path) -> PipelineConfig:
    def fix(text: str) -> str:
        return text if "://" in text or Path(text).is_absolute() else str((base / text).resolve())

    def fix_code(text: str) -> str:
        file, colon, function = text.rpartition(":")
        return f"{fix(file)}:{function}" if colon and file.endswith(".py") else fix(text)

    data = config.data.model_copy(
        update={
            "path": tuple(fix(p) for p in config.data.path),
            "splits": {k: tuple(fix(p) for p in v) if isinstance(v, tuple) else v for k, v in config.data.splits.items()},
        }
    )
    model = config.trainer.model

    def fix_codes(given: str | dict[str, str] | None) -> str | dict[str, str] | None:
        if isinstance(given, dict):
            return {k: fix_code(v) if is_code(v) else v for k, v in given.items()}
        return fix_code(given) if given and is_code(given) else given

    def fix_model(given: str | HuggingFaceModel) -> str | HuggingFaceModel:
        return fix_code(given) if isinstance(given, str) else given.model_copy(update={"huggingface": fix(given.huggingface)})

    frameworks = tuple(_absolute_framework(f, base) for f in config.trainer.listed)
    trainer = config.trainer.model_copy(
        update={
            "framework": frameworks[0] if isinstance(config.trainer.framework, str) else frameworks,
            "model": {k: fix_model(v) for k, v in model.items()} if isinstance(model, dict) else model and fix_model(model),
            "loss": fix_codes(config.trainer.loss),
            "callbacks": fix_codes(config.trainer.callbacks),
        }
    )
    jars = {k: fix(str(v)) for k, v in config.beam.options.items() if k.endswith("_job_server_jar")}
    tokenizer, checks = config.tokenizer, config.validation
    code, folder = (tokenizer.code, tokenizer.huggingface) if tokenizer else (None, None)
    places = {"code": code and fix_code(code), "huggingface": folder and fix(folder)}
    files = {"schema_path": checks.schema_path, "serving_sample": checks.serving_sample}
    return config.model_copy(
        update={
            "data": data,
            "trainer": trainer,
            "beam": config.beam.model_copy(update={"options": {**config.beam.options, **jars}}),
            "preprocessing": config.preprocessing and fix_code(config.preprocessing),
            "tokenizer": tokenizer and tokenizer.model_copy(update=places),
            "evaluation": config.evaluation.model_copy(
                update={"metrics": config.evaluation.metrics and fix(config.evaluation.metrics)}
            ),
            "files": tuple(fix(f) for f in config.files),
            "signing": config.signing
            and config.signing.model_copy(
                update={
                    "key": fix(config.signing.key),
                    "certificate": config.signing.certificate and fix(config.signing.certificate),
                    "chain": tuple(fix(c) for c in config.signing.chain),
                }
            ),
            "validation": checks.model_copy(update={k: v and fix(v) for k, v in files.items()}),
        }
    )


def _absolute_framework(framework: str, base: Path) -> str:
    """Returns `/path/to/file.py:Class` for a trainer in a file beside the YAML, else the framework unchanged."""
    module, _, name = framework.rpartition(":")
    if module.endswith(".py"):
        return f"{module if Path(module).is_absolute() else (base / module).resolve()}:{name}"
    file = base / f"{module.replace('.', '/')}.py"
    return f"{file.resolve()}:{name}" if module and file.is_file() else framework
