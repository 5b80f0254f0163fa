"""Checks whether this machine is fit for a run: system, memory, disk, packages, GPU, and the programs that some options need."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from switchyard.components.errors import first_line
from switchyard.components.text.redaction import mask
from switchyard.components.user_code.constraints import canonical, constraints, installed_version, public
from switchyard.pipelines.finding import FAILED, OK, UNKNOWN, Finding

GIB = 2**30
# Peak memory of a run on 20,000 rows and on millions is 2.2 to 2.6 GiB (docs/performance.md).
_MEMORY, _DISK = 4 * GIB, 2 * GIB
_EXTRAS = {
    "huggingface": ("transformers", "peft", "tokenizers"),
    "kubeflow": ("kfp", "kfp-kubernetes"),
    "lightgbm": ("lightgbm",),
    "signing": ("model-signing",),
}
# The CUDA compiler, which TensorFlow's wheel does not bring.
_NVCC = "nvidia-cuda-nvcc-cu12"
# CUDA libraries whose packages of two CUDA generations write the same files.
_SHARED = ("nvidia-cudnn", "nvidia-nccl")


def examine_machine(folder: Path, tracking_uri: str | None) -> list[Finding]:
    """Returns the findings of all checks; starts nothing but `java -version`, and imports no framework.

    Args:
        folder: where runs write.
        tracking_uri: MLflow's server or database of the runs; None: the workspace's, which needs no server.
    """
    return [
        *_python(),
        _memory(),
        _disk(folder),
        *_packages(),
        *_gpu(),
        *_programs(),
        _tracking(tracking_uri),
    ]


def _python() -> Iterator[Finding]:
    here = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    name, text = platform.libc_ver()
    glibc = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", FAILED, f"{here}; use 3.11, 3.12 or 3.13 (docs/install.md)")
    elif name != "glibc":
        yield Finding("python", UNKNOWN, f"{here}, without glibc: packages may resolve for it, and no test ran on it")
    elif glibc < (2, 28) or (glibc < (2, 39) and sys.version_info[:2] > (3, 11)):
        yield Finding("python", FAILED, f"{here}, glibc {text}: below 2.39 use Python 3.11, and at least 2.28 (docs/install.md)")
    else:
        yield Finding("python", OK, f"{here}, glibc {text}")


def _memory() -> Finding:
    import psutil

    total = psutil.virtual_memory().total
    # The container's limit, if it has one.
    file = Path("/sys/fs/cgroup/memory.max")
    limit = file.read_text().strip() if file.is_file() else ""
    total = min(total, int(limit)) if limit.isdigit() else total
    said = f"{total / GIB:.1f} GiB in all, {psutil.virtual_memory().available / GIB:.1f} available, {os.cpu_count()} cores"
    if total < _MEMORY:
        return Finding("memory", FAILED, f"{said}; a small run needs up to 3 GiB: use a machine with 4 or more")
    return Finding("memory", OK, said)


def _disk(folder: Path) -> Finding:
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    said = f"{free / GIB:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Finding("disk", FAILED, f"{place} cannot be written to; give another folder with --workspace")
    if free < _DISK:
        return Finding("disk", FAILED, f"{said}; a run writes a copy of its data, models and logs: free some, or use --workspace")
    return Finding("disk", OK, said)


def _packages() -> Iterator[Finding]:
    clashes = sorted(_clashes(constraints(installed=False)))
    for clash in clashes[:10]:
        yield Finding("packages", FAILED, clash)
    if len(clashes) > 10:
        yield Finding("packages", FAILED, f"and {len(clashes) - 10} others")
    if not clashes:
        frameworks = ", ".join(f"{p} {installed_version(p) or 'missing'}" for p in ("tensorflow", "torch", "tfx", "mlflow"))
        yield Finding("packages", OK, frameworks)
    names = {canonical(d.metadata["Name"]) for d in metadata.distributions() if d.metadata["Name"]}
    for library in _SHARED:
        both = sorted(n for n in names if n.startswith(f"{library}-cu"))
        if len(both) > 1:
            yield Finding(
                "packages",
                FAILED,
                f"{' and '.join(both)} write the same files: uninstall both, then install the one of the lock again",
            )
    for extra, packages in _EXTRAS.items():
        missing = [p for p in packages if installed_version(p) is None]
        said = f"not installed: pip install 'switchyard[{extra}]', if it is needed" if missing else "installed"
        yield Finding(f"extra {extra}", UNKNOWN if missing else OK, said)


def _clashes(tested: dict[str, str]) -> Iterator[str]:
    """Yields what an installed package needs and another version of which is installed, unless that one is tested."""
    from packaging.requirements import Requirement

    for found in metadata.distributions():
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            package, owner = canonical(needed.name), canonical(found.metadata["Name"])
            version = installed_version(package)
            if version is not None and needed.specifier.contains(version, prereleases=True):
                continue
            # The lock of older systems overrides some of its own packages' limits (docs/install.md).
            if version is not None and public(version) == tested.get(package) and owner in tested:
                continue
            said = f"{found.metadata['Name']} {found.version} needs {needed.name}{needed.specifier}"
            fix = f"pip install '{needed.name}{needed.specifier}'"
            yield f"{said}, and {f'{version} is installed' if version else 'it is missing'}: {fix}"


def _gpu() -> Iterator[Finding]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield Finding("gpu", UNKNOWN, f"no NVIDIA GPU or driver ({first_line(error)}): runs train on the CPU")
        return
    try:
        driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
        for number in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(number)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            said = f"{pynvml.nvmlDeviceGetName(device)}, {memory.total / GIB:.0f} GiB, driver {driver}"
            yield Finding("gpu", OK, f"{said}, for CUDA up to {cuda // 1000}.{cuda % 1000 // 10}")
        if cuda < 12000:
            yield Finding(
                "gpu", FAILED, f"driver {driver} is too old for CUDA 12, which both frameworks use: install a later one"
            )
        if installed_version(_NVCC) is None:
            yield Finding("gpu", FAILED, f"TensorFlow's XLA needs {_NVCC}: pip install 'switchyard[gpu]'")
    finally:
        pynvml.nvmlShutdown()


def _programs() -> Iterator[Finding]:
    compiler = next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    said = compiler or "none: trainer.accelerator.compile of a PyTorch model on a CPU needs one (apt-get install g++)"
    yield Finding("c++ compiler", OK if compiler else UNKNOWN, said)
    if shutil.which("java") is None:
        yield Finding("java", UNKNOWN, "none: beam.runner: FlinkRunner needs Java 11 or 17")
    else:
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False, timeout=30)
        line = (done.stderr or done.stdout).splitlines()[:1]
        number = re.search(r'"(?:1\.)?(\d+)', "".join(line))
        fits = number is not None and number[1] in ("11", "17")
        fix = (
            ""
            if fits
            else "; FlinkRunner needs Java 11 or 17: name another by the option job_server_java_launcher of beam.options"
        )
        yield Finding("java", OK if fits else UNKNOWN, f"{''.join(line) or 'no version'}{fix}")
    kubectl = shutil.which("kubectl")
    said = kubectl or "none: submit and runs do without; doctor --host and deploy --apply need it"
    yield Finding("kubectl", OK if kubectl else UNKNOWN, said)


def _tracking(uri: str | None) -> Finding:
    from switchyard.components.tracking import run as tracking

    if not uri:
        return Finding("mlflow", OK, "in the workspace of each run; no server is needed")
    try:
        tracking.client(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow's stores raise many types of errors
        said = f"{mask(uri)} does not answer: {mask(first_line(error))}"
        return Finding("mlflow", FAILED, f"{said}; check the address and the server. Runs keep their records until then")
    return Finding("mlflow", OK, f"{mask(uri)} answers")
