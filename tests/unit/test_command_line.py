"""The command's help texts: quick, complete, readable."""

import subprocess
import sys

from click import Context
from click.testing import CliRunner

from switchyard.pipelines.cli import main
from tests.command import REPOSITORY, environment, switchyard

HEAVY = ("tensorflow", "torch", "tfx", "mlflow", "apache_beam", "pandas", "pydantic", "psutil")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom switchyard.pipelines.cli import main\n"
        "for arguments in (['--help'], ['run', '--help'], ['ui', '--help']):\n"
        "    try: main(arguments)\n    except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_help_of_run_names_its_options_and_exit_codes():
    done = CliRunner().invoke(main, ["run", "--help"])
    assert done.exit_code == 0
    assert all(word in done.stdout for word in ("--trainer", "--set", "--json", "--workspace", "Exit codes:", "not blessed"))
    assert "\n  switchyard run pipeline.yaml --trainer pytorch\n" in done.stdout


def test_no_help_text_shows_its_markup():
    def texts(command, name):
        yield name, command.get_help(Context(command))
        for inner, each in getattr(command, "commands", {}).items():
            yield from texts(each, f"{name} {inner}")

    for name, text in texts(main, "switchyard"):
        assert "\\b" not in text, name


def test_the_version_is_printed_by_a_process_of_its_own():
    assert switchyard("--version").stdout.startswith("switchyard, version 0.")
