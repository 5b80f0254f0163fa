import subprocess
import sys

from tests.command import REPOSITORY, environment, switchyard

HEAVY = ("tensorflow", "torch", "tfx", "mlflow", "apache_beam", "pandas", "pydantic")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        "for arguments in (['--help'], ['run', '--help'], ['ui', '--help']):\n"
        "    try: main(arguments)\n    except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_reads_well():
    done = switchyard("run", "--help")
    assert done.code == 0
    assert all(word in done.stdout for word in ("--trainer", "--set", "--json", "--workspace", "Exit codes:", "not blessed"))


def test_version():
    assert switchyard("--version").stdout.startswith("switchyard, version 0.")
