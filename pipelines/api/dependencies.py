"""Installs the packages that user code needs beside Switchyard's own, which keep their versions, and lists them in a YAML."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib import invalidate_caches, metadata
from pathlib import Path
from typing import Any

from switchyard.components.errors import ArgumentError, UserError
from switchyard.components.process.interpreter import start
from switchyard.components.text.redaction import mask
from switchyard.components.user_code.constraints import canonical, constraints, installed_version, public
from switchyard.components.user_code.dependencies import check_installed, requirement
from switchyard.pipelines.config.list_edit import edit_list
from switchyard.pipelines.config.load import load_config

_UNREACHABLE = re.compile(r"Retrying \(Retry|connection broken|NewConnectionError|Could not fetch URL|Max retries exceeded")
_UNKNOWN = re.compile(r"No matching distribution found for (\S+)|Could not find a version that satisfies the requirement (\S+)")
_CAUSES = re.compile(r"^The conflict is caused by:\n((?: {4}.+\n)+)", re.MULTILINE)


def add_dependencies(packages: Sequence[str], pipeline: Path | None = None) -> tuple[str, ...]:
    """Installs packages into the running environment and returns them as `name==version`.

    Args:
        packages: names, with or without a version; without any, those that the pipeline lists.
        pipeline: YAML whose `dependencies` are extended by them.

    Raises:
        UserError: a package does not exist, does not fit the others, or cannot be fetched or installed.
    """
    listed = load_config(pipeline).dependencies if pipeline else ()
    if not packages and not pipeline:
        raise ArgumentError(
            "packages", "names no package; give one, such as transformers, or --pipeline with a YAML that lists some"
        )
    added = [_parsed(package) for package in packages]
    names = {canonical(requirement(text).name) for text in added}
    kept = [text for text in listed if canonical(requirement(text).name) not in names]
    target = sysconfig.get_path("purelib")
    if not os.access(target, os.W_OK):
        raise UserError(f"dependencies add: {target} is not writable; run it as its owner, or in an environment of your own")
    found = _resolved([*kept, *added]) if kept or added else {}
    if found:
        _pip(["install", "--no-deps", *(f"{name}=={version}" for name, version in found.items())])
        invalidate_caches()
    pins = tuple(f"{name}=={_listed(metadata.version(name), text)}" for text in added if (name := requirement(text).name))
    check_installed([*kept, *pins])
    if pipeline and pins:
        edit_list(pipeline, "dependencies", {canonical(requirement(pin).name): pin for pin in pins}, _name)
    return (*kept, *pins)


def _listed(installed: str, asked: str) -> str:
    """Returns the version to list: without a local label, unless it was asked for."""
    return installed if "+" in asked else public(installed)


def _name(text: str) -> str:
    return canonical(requirement(text).name)


def _parsed(package: str) -> str:
    try:
        return str(requirement(package))
    except ValueError as problem:
        raise ArgumentError("packages", str(problem)) from None


def _resolved(wanted: Sequence[str]) -> dict[str, str]:
    """Returns what has to be installed: name -> version; Switchyard's packages are never changed.

    pip sees them as installed and without requirements of their own: the locks override some of these, so that pip would
    refuse each package that needs TensorFlow or PyTorch.
    """
    own = constraints()
    with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
        for name in own:
            if installed_version(name) is not None:
                _write_stub(Path(folder) / "installed", metadata.distribution(name))
        pins, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in own.items()), encoding="utf-8")
        settings = ["--dry-run", "--constraint", str(pins), "--report", str(report)]
        _pip(["install", *settings, *wanted], first=str(Path(folder) / "installed"))
        install: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in install}
    return {name: version for name, version in found.items() if canonical(name) not in own or installed_version(name) is None}


def _write_stub(folder: Path, installed: metadata.Distribution) -> None:
    """Writes a distribution's metadata without its requirements, except those of its extras."""
    name, version = installed.metadata["Name"], installed.version
    place = folder / f"{canonical(name).replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in installed.metadata.get_all("Provides-Extra") or ()]
    lines += [f"Requires-Dist: {text}" for text in installed.requires or () if re.search(r"\bextra\s*==", text)]
    (place / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pip(arguments: Sequence[str], first: str | None = None) -> None:
    """Runs pip.

    Args:
        arguments: its arguments.
        first: folder that comes first on pip's `sys.path`.

    Raises:
        UserError: pip failed.
    """
    options = ["--no-input", "--disable-pip-version-check", "--no-color"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (first, os.environ.get("PYTHONPATH"))))}
    process = start("pip", [*arguments, *options], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = process.communicate()[0]
    if process.returncode:
        raise UserError(f"dependencies add: {_reason(output)}")


def _reason(output: str) -> str:
    if _UNREACHABLE.search(output):
        return (
            "no package index can be reached; connect this machine, or set pip's PIP_INDEX_URL to an index, or PIP_FIND_LINKS to "
            "a folder of wheels"
        )
    if causes := _CAUSES.search(output):
        lines = [line.strip().replace("The user requested (constraint)", "Switchyard has") for line in causes[1].splitlines()]
        lines = [line.replace("The user requested", "you asked for") for line in dict.fromkeys(lines)]
        return f"the packages do not fit together: {', and '.join(lines)}; choose another version"
    if unknown := _UNKNOWN.search(output):
        python = ".".join(map(str, sys.version_info[:2]))
        return f"no version of {unknown[1] or unknown[2]} for Python {python}; check the name and the version"
    errors = re.findall(r"^\s*(?:ERROR|error): (.+)$", output, re.MULTILINE)
    return f"pip failed: {mask((errors or output.strip().splitlines() or ['no output'])[-1])[:300]}"
