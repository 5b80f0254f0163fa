"""The functions of `import switchyard`: the commands' options are their arguments, errors are raised, nothing is printed."""

import asyncio
import importlib
import inspect

import numpy as np
import pytest
from click import Context

import switchyard
from switchyard.components.bundle.source import ModelRef
from switchyard.components.errors import ArgumentError
from switchyard.pipelines.api.pipeline_argument import load
from switchyard.pipelines.api.texts_argument import as_texts
from switchyard.pipelines.cli import main
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.contract import RunResult
from switchyard.pipelines.terminal.console import SilentConsole
from switchyard.pipelines.terminal.output import progress_console
from switchyard.pipelines.terminal.progress import make_display
from tests.bad_input import GOOD, command_in_this_process

submitting = importlib.import_module("switchyard.pipelines.api.submit")  # the package's attribute is the function
# Of the command: what says how it prints, and what the function has in another form.
PRINTS = {"as_json"}
RENAMED = {"trainers": "trainer", "inputs": "rows"}
IN_ANOTHER_FORM = {"run": {"data", "label"}, "submit": {"schedule", "catchup", "max_concurrency"}}
# Of the function alone.
FOR_PROGRAMS = {"check", "progress"}


@pytest.fixture(autouse=True)
def command():
    """The command in this process; what it and the functions set for the process is put back."""
    with command_in_this_process() as found:
        yield found


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "d.csv").write_text(GOOD)
    path = tmp_path / "p.yaml"
    path.write_text("name: case\ndata: {path: d.csv}\nlabel: y\n")
    return path


@pytest.mark.parametrize("name", ["run", "compile", "submit", "predict", "serve"])
def test_a_commands_options_match_its_functions_arguments(name):
    found = main.get_command(Context(main), name)
    options = {RENAMED.get(p.name, p.name) for p in found.params} - PRINTS - IN_ANOTHER_FORM.get(name, set())
    assert options == set(inspect.signature(getattr(switchyard, name)).parameters) - FOR_PROGRAMS


@pytest.mark.parametrize("name", ["run", "compile", "submit", "schedule", "load_model", "predict", "serve"])
def test_every_argument_is_typed_and_described(name):
    function = getattr(switchyard, name)
    for argument, parameter in inspect.signature(function).parameters.items():
        assert parameter.annotation is not parameter.empty, argument
        assert f"\n    {argument}: " in inspect.getdoc(function), argument


def test_a_pipeline_is_a_path_a_mapping_or_a_config(pipeline, monkeypatch):
    monkeypatch.chdir(pipeline.parent)
    config, source, place = load(str(pipeline), {"trainer.hyperparameters.epochs": 3}, None, None)
    assert (config.trainer.hyperparameters.epochs, source, place.root) == (3, pipeline, pipeline.parent / ".switchyard")
    config, source, place = load({"data": {"path": "d.csv"}, "label": "y"}, ["task=binary"], "pytorch", "w")
    assert (config.name, config.task, config.trainer.frameworks) == ("d", "binary", ("pytorch",))
    assert (source, place.root) == (None, pipeline.parent / "w")
    loaded = load_config(pipeline, overrides={"trainer.framework": ["tensorflow", "pytorch"]})
    assert load(loaded, (), None, "w")[0] is loaded
    with pytest.raises(switchyard.UserError, match="a loaded config has its values"):
        load(loaded, ["task=binary"], None, "w")


def test_errors_are_raised_and_not_printed(pipeline, capfd):
    with pytest.raises(switchyard.UserError, match="has no column 'nope'"):
        switchyard.run(pipeline, overrides={"label": "nope"})
    with pytest.raises(switchyard.UserError, match=r"learning_rat.*Did you mean"):
        switchyard.compile(pipeline, overrides={"trainer.hyperparameters.learning_rat": 1})
    with pytest.raises(ArgumentError, match=r"^output: the folder .* does not exist"):
        switchyard.compile(pipeline, output=pipeline.parent / "none" / "p.kfp.yaml")
    with pytest.raises(ArgumentError, match=r"^runner: 'loca' is not a runner"):
        switchyard.run(pipeline, runner="loca")
    with pytest.raises(ArgumentError, match=r"^host: is missing; give the URL"):
        switchyard.submit(pipeline)
    with pytest.raises(ArgumentError, match=r"^heal: takes effect only with wait"):
        switchyard.submit(pipeline, host="http://127.0.0.1:1", heal=1)
    for argument, value in (("stuck", 0), ("heal", 1.5), ("poll", 0), ("poll", "5"), ("timeout", float("nan"))):
        with pytest.raises(ArgumentError, match=rf"^{argument}: "):
            switchyard.submit(pipeline, host="http://127.0.0.1:1", wait=True, **{argument: value})
    with pytest.raises(ArgumentError, match=r"^max_concurrency: 0 is not 1 or more, up to 10"):
        switchyard.schedule(pipeline, "0 3 * * *", host="http://127.0.0.1:1", max_concurrency=0)
    with pytest.raises(ArgumentError, match=r"^port: 70000 is not 0 or more, up to 65535"):
        switchyard.serve("m@champion", port=70000)
    for argument in ("poll", "timeout", "drain", "canary", "sample"):
        for value in (float("nan"), float("inf"), "5", True):
            with pytest.raises(ArgumentError, match=rf"^{argument}: "):
                switchyard.serve("m@champion", **{argument: value})
    with pytest.raises(ArgumentError, match=r"^input_format: 'exe' is none of auto, csv"):
        switchyard.predict("m@champion", "rows.csv", output="out.csv", input_format="exe")
    for bad in (-1, float("nan"), "5", 0.5):
        with pytest.raises(ArgumentError, match=rf"^max_bad_rows: {bad!r} is no.* 0 or more"):
            switchyard.predict("m@champion", "rows.csv", output="out.csv", max_bad_rows=bad)
    with pytest.raises(ArgumentError, match=r"^output: is missing"):
        switchyard.predict("m@champion", "rows.csv")
    with pytest.raises(ArgumentError, match=r"^output: applies to files only"):
        switchyard.predict("m@champion", [{"x": 1}], output="out.csv")
    assert capfd.readouterr() == ("", "")
    assert not (pipeline.parent / ".switchyard").exists()


@pytest.mark.parametrize(("given", "name"), [("mine", "mine"), (None, "of_the_yaml")])
def test_an_experiment_names_the_one_of_kfp_and_of_mlflow(pipeline, monkeypatch, given, name):
    asked = []

    class Client:
        def experiment(self, name):
            asked.append(name)
            raise switchyard.UserError("enough")

    def compile_for_cluster(config, *_, **options):
        asked.append(config.experiment)
        return None, config, None

    monkeypatch.setattr(submitting, "_client", lambda *_: Client())
    monkeypatch.setattr(submitting, "compile_for_cluster", compile_for_cluster)
    for function, more in ((switchyard.submit, ()), (submitting.schedule, ("0 3 * * *",))):
        with pytest.raises(switchyard.UserError, match="enough"):
            function(pipeline, *more, experiment=given, overrides={"tracking.experiment": "of_the_yaml"})
    assert asked == [name] * 4
    with pytest.raises(ArgumentError, match=r"^experiment: has 300 characters, .* at most 256; shorten it"):
        switchyard.submit(pipeline, experiment="x" * 300)


def test_a_command_names_the_option_of_an_argument(pipeline, command):
    done = command("compile", pipeline, "--output", pipeline.parent / "none" / "p.kfp.yaml")
    assert done.exit_code == 2
    assert "error: --output: the folder" in done.stderr


class ReachedTheServer(Exception):
    pass


@pytest.fixture
def served(monkeypatch):
    """Calls `serve` with a folder, up to the server; returns its options and address."""
    serving = importlib.import_module("switchyard.pipelines.api.serve")
    found = []

    def server(source, settings, address, say):
        found[:] = [settings, address]
        raise ReachedTheServer

    monkeypatch.setattr(serving, "_serve", server)
    monkeypatch.setattr(serving, "model_ref", lambda *_, **__: ModelRef("sqlite://", "m", "champion"))

    def call(**arguments):
        with pytest.raises(ReachedTheServer):
            switchyard.serve("m@champion", **arguments)
        return found

    return call


def test_numbers_of_numpy_are_numbers_to_a_server(served):
    settings, (_, port) = served(
        port=np.int64(8081), max_body=np.uint8(2), max_rows=np.int32(5), timeout=np.float32(2), canary=np.float64(5), drain=3
    )
    assert (port, settings.limits.body, settings.limits.rows) == (8081, 2 << 20, 5)
    assert (settings.limits.seconds, settings.canary_share, settings.drain_seconds) == (2.0, 0.05, 3.0)
    for value in (port, settings.limits.body, settings.limits.rows, settings.limits.seconds, settings.canary_share):
        assert type(value) in (int, float)


@pytest.mark.parametrize(
    ("argument", "value", "problem"),
    [
        ("canary", 0, "0 is not more than 0, below 100"),
        ("canary", np.int64(100), "100 is not more than 0, below 100"),
        ("sample", 0, "0 is not more than 0, up to 100"),
        ("port", 8080.5, "8080.5 is no whole number; give 0 or more, up to 65535"),
        ("max_rows", np.float64(10), "is no whole number; give 1 or more"),
        ("queue", np.bool_(1), "is no whole number"),
        ("idle_timeout", "5", "'5' is no whole number"),
    ],
)
def test_a_server_takes_the_numbers_that_the_command_takes(served, argument, value, problem):
    with pytest.raises(ArgumentError, match=rf"^{argument}: .*{problem}"):
        served(**{argument: value})


@pytest.mark.parametrize(("option", "value"), [("--timeout", "nan"), ("--poll", "inf"), ("--canary", "nan"), ("--sample", "nan")])
def test_a_command_refuses_invalid_numbers(command, option, value):
    done = command("serve", "m@champion", option, value)
    assert done.exit_code == 2
    assert f"error: {option}: {value} is not" in done.stderr


def test_a_string_is_not_taken_for_a_list_of_letters():
    assert as_texts("ssn") == ("ssn",)
    assert as_texts(["ssn", "name"]) == ("ssn", "name")


async def served_in_an_event_loop():
    switchyard.serve("m@champion")


def test_a_server_is_not_started_in_a_notebooks_event_loop():
    with pytest.raises(switchyard.UserError, match="run `switchyard serve` in a terminal"):
        asyncio.run(served_in_an_event_loop())


def ended(status, exit_code, error="why"):
    return RunResult("p", status, "tensorflow", None, None, None, {}, {}, None, None, None, {}, "", error, exit_code)


def test_a_run_that_failed_raises_and_a_verdict_does_not():
    ended("blessed", 0, None).raise_for_status()
    ended("not_blessed", 4).raise_for_status()
    for exit_code, kind in ((1, switchyard.StageError), (2, switchyard.UserError), (3, switchyard.DataGateError)):
        with pytest.raises(kind, match="why"):
            ended("failed", exit_code).raise_for_status()
    with pytest.raises(KeyboardInterrupt):
        ended("cancelled", 1).raise_for_status()
    assert ended("failed", 1).report is None


def a_run_that_warns():
    with progress_console(False) as console:
        assert isinstance(console, SilentConsole)
        display = make_display(console)
        with display:
            display.status("training", "running")
            display.say("training", "epoch 1")
            display.say("tracking", "warning: MLflow is away")
        console.print("compiling")


def test_without_progress_warnings_are_python_warnings(capfd):
    with pytest.warns(UserWarning, match="^tracking: MLflow is away$"):
        a_run_that_warns()
    assert capfd.readouterr() == ("", "")
