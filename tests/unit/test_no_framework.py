"""Unit tests import no framework, also in sessions in which other suites have imported them: see the conftest."""

import subprocess
import sys
from pathlib import Path

from tests.command import REPOSITORY, environment
from tests.unit.conftest import FRAMEWORKS, loaded

IMPORT_EACH = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(f"tests.unit.{name}")
    found = [f for f in sys.argv[1].split(",") if f in sys.modules]
    if found:
        sys.exit(f"tests.unit.{name} imports {found}")
"""


def test_no_module_of_the_unit_tests_imports_a_framework():
    modules = sorted(p.stem for p in Path(__file__).parent.glob("test_*.py"))
    if not loaded() and {f"tests.unit.{name}" for name in modules} <= sys.modules.keys():
        return  # This process has imported them all, and nothing else: it is the proof.
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH, ",".join(FRAMEWORKS), *modules],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
