"""Options, exit codes and error handling shared by the commands."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from switchyard.components.errors import (
    CANCELLED,
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    MEANINGS,
    ArgumentError,
    SwitchyardError,
    first_line,
)
from switchyard.components.process import variables
from switchyard.components.process.full_disk import full_disk
from switchyard.components.text.redaction import mask
from switchyard.components.text.visible import visible
from switchyard.pipelines.commands import SERVE
from switchyard.pipelines.project import PIPELINE

_PATHS = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.EROFS,
    errno.ELOOP,
)

EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in MEANINGS.items())


def handle_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a command so that errors end it with one message and an exit code instead of a stack trace."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ArgumentError as error:
            _fail(f"{_option_of(error.argument)}: {error.problem}", error.exit_code)
        except SwitchyardError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail(CANCELLED, EXIT_FAILED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if full := full_disk(error):
                _fail(full, EXIT_FAILED)
            if not _of_the_tracking_store(error):
                _unexpected(error)
            from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal, refusal

            if is_refusal(error) or is_denial(error):
                _fail(refusal("", error), EXIT_BAD_INPUT)
            _fail(
                f"cannot reach MLflow: {first_line(error)}\n"
                "Check that the server runs and the database is intact. "
                "The URI comes from --tracking-uri, then MLFLOW_TRACKING_URI, then the workspace.",
                EXIT_FAILED,
            )

    return run


def refuse_in_a_serving_image(command: str) -> None:
    """Ends the process in an image that only serves, unless the command does or its help is asked for."""
    serves = os.environ.get(variables.SERVES)
    if serves and command != SERVE and not {"-h", "--help"} & set(sys.argv):
        _fail(
            f"this image, switchyard-serving for {serves}, only serves models of {serves}, by switchyard serve; for switchyard "
            f"{command} use the image that `make image` builds, which runs pipelines",
            EXIT_BAD_INPUT,
        )


def _option_of(argument: str) -> str:
    """Returns the command's option, or argument, that stands for an argument of a public function."""
    context = click.get_current_context(silent=True)
    if context is None:
        return argument
    for parameter in context.command.params:
        if parameter.name == argument:
            return parameter.make_metavar(context) if isinstance(parameter, click.Argument) else parameter.opts[-1]
    return argument


def _unexpected(error: Exception) -> NoReturn:
    """Reports a refused path as a user error and anything else as Switchyard's; raises it instead in debug mode."""
    if os.environ.get(variables.DEBUG):
        raise error
    if isinstance(error, OSError) and error.filename and error.errno in _PATHS:
        _fail(f"{os.fsdecode(error.filename)}: {error.strerror}. Check the path and its permissions.", EXIT_BAD_INPUT)
    if isinstance(error, ModuleNotFoundError) and (serves := os.environ.get(variables.SERVES)):
        _fail(
            f"this image, switchyard-serving for {serves}, has no {error.name}; serve the model in the image that `make image` "
            "builds",
            EXIT_BAD_INPUT,
        )
    _fail(
        f"{type(error).__name__}: {first_line(error)}\n"
        f"This error is unexpected and probably a fault of Switchyard. {variables.DEBUG}=1 shows where, for a report.",
        EXIT_FAILED,
    )


def _of_the_tracking_store(error: Exception) -> bool:
    """Whether MLflow or its database raised an error; checks the module's name to avoid importing MLflow for help."""
    return type(error).__module__.split(".")[0] in ("mlflow", "sqlalchemy")


def _fail(message: str, code: int) -> NoReturn:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(visible(mask(message)), err=True)
    sys.exit(code)


workspace_option = click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for everything a run writes.  [default: .switchyard beside the YAML]",
)

trainers_option = click.option(
    "--trainer",
    "trainers",
    metavar="NAME",
    multiple=True,
    help="tensorflow, pytorch, lightgbm or module:Class; repeat it to train several and bless the best; ensemble adds their "
    "weighted mean. Sets trainer.framework.",
)


overrides_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override any value of the YAML.")
pipeline_argument = click.argument("pipeline", type=click.Path(path_type=Path), default=Path(PIPELINE))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
registry_option = click.option("--tracking-uri", metavar="URI", help="MLflow server or database.  [default: the workspace's]")

trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Accept a MODEL without a registered digest: loading it can run its content (docs/security.md).",
)

verify_option = click.option(
    "--verify",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KEY",
    help="PEM file with the public key, or certificate, that MODEL's signature must verify with, instead of --trust.",
)

tracking_uri_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    metavar="URI",
    help="MLflow's address for this machine.  [default: the pipeline's]",
)


def _refuse_given(*names: str) -> None:
    """Raises ArgumentError if one of the options of a connection is on the command line, for a command without --host."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ArgumentError(name, "without --host there is no connection; give --host URL, or remove it")


def connection_options(command: Callable[..., Any], *, required: bool = True) -> Callable[..., Any]:
    """Adds the options of the connection to Kubeflow Pipelines and passes them on as one `connection`.

    Args:
        command: the command.
        required: False: without a URL, in the option or the variable, the connection is None, and its other options are refused.
    """

    @handle_errors
    @wraps(command)
    def run(
        host: str | None,
        namespace: str | None,
        token_file: Path | None,
        ca_cert: Path | None,
        insecure: bool,
        timeout: float,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        from switchyard.pipelines.runners.kubeflow.cluster.client import Connection

        found = Connection(host, namespace, token_file, ca_cert, insecure, timeout) if host else None
        if found is None:
            _refuse_given("namespace", "token_file", "ca_cert", "insecure", "timeout")
        return command(*args, connection=found, **kwargs)

    options = (
        click.option("--host", envvar=variables.KFP_HOST, required=required, metavar="URL", help="URL of Kubeflow Pipelines."),
        click.option("--namespace", envvar=variables.KFP_NAMESPACE, help="Your namespace, on a multi-user Kubeflow."),
        click.option(
            "--token-file", type=click.Path(path_type=Path), help="File with a bearer token.  [default: SWITCHYARD_KFP_TOKEN]"
        ),
        click.option("--ca-cert", type=click.Path(path_type=Path), help="File with the certificate authority of the server."),
        click.option("--insecure", is_flag=True, help="Do not verify the server's certificate."),
        click.option(
            "--timeout", default=30.0, show_default=True, type=click.FloatRange(min=1), help="Timeout of a request, in seconds."
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run
