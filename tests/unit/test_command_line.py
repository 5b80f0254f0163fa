"""The command's help texts: quick, complete, readable."""

import subprocess
import sys

import pytest
from click import Context, Group
from click.testing import CliRunner

from switchyard.pipelines.cli import main
from switchyard.pipelines.commands import COMMANDS
from tests.command import REPOSITORY, environment, switchyard

HEAVY = ("tensorflow", "torch", "tfx", "mlflow", "apache_beam", "pandas", "numpy", "pydantic", "kfp", "kfp_server_api")


def imported_by_help(*commands):
    code = (
        "import sys\nfrom switchyard.pipelines.cli import main\n"
        f"for name in {commands!r}:\n"
        "    try: main([name, '--help'] if name else ['--help'])\n    except SystemExit: pass\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_neither_a_command_nor_anything_heavy():
    found = imported_by_help("")
    assert not found & {*HEAVY, "rich", "psutil"}
    commands = {name for name in found if name.startswith("switchyard.pipelines.commands.")}
    assert commands == {"switchyard.pipelines.commands.options"}


def test_the_help_of_a_command_imports_nothing_heavy():
    assert not imported_by_help(*COMMANDS) & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_found_by_the_name_of_its_module(name):
    found = main.get_command(Context(main), name)
    assert found.name == name
    assert (REPOSITORY / "pipelines" / "commands" / f"{name}.py").is_file()


def test_every_module_of_commands_is_one_or_holds_their_options():
    modules = {path.stem for path in (REPOSITORY / "pipelines" / "commands").glob("*.py")}
    assert modules == {*COMMANDS, "__init__", "options"}


def test_an_unknown_command_is_named():
    done = CliRunner().invoke(main, ["trian"])
    assert done.exit_code == 2
    assert "No such command 'trian'" in done.stderr


@pytest.mark.parametrize("arguments", [["run", "p.yaml"], ["models", "list"], ["predict", "m@1", "x.csv", "-o", "y.csv"]])
def test_a_serving_image_refuses_every_command_but_serve_and_names_the_image_for_it(arguments, monkeypatch):
    monkeypatch.setenv("SWITCHYARD_SERVES", "pytorch")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: this image, switchyard-serving for pytorch, only serves models of pytorch, by switchyard serve; for switchyard "
        f"{arguments[0]} use the image that `make image` builds, which runs pipelines\n"
    )
    assert CliRunner().invoke(main, ["serve", "--help"]).exit_code == 0


def test_the_help_of_run_names_its_options_and_exit_codes():
    done = CliRunner().invoke(main, ["run", "--help"])
    assert done.exit_code == 0
    assert all(word in done.stdout for word in ("--trainer", "--set", "--json", "--workspace", "Exit codes:", "not blessed"))
    assert "\n  switchyard run pipeline.yaml --trainer pytorch\n" in done.stdout


def test_help_texts_show_no_markup():
    def texts(command, name):
        yield name, command.get_help(Context(command))
        context = Context(command)
        for inner in command.list_commands(context) if isinstance(command, Group) else ():
            yield from texts(command.get_command(context, inner), f"{name} {inner}")

    for name, text in texts(main, "switchyard"):
        assert "\\b" not in text, name


def test_the_version_is_printed_by_a_process_of_its_own():
    assert switchyard("--version").stdout.startswith("switchyard, version 0.")
