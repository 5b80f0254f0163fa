"""Client of KFP's v2beta1 API, based on KFP's generated client, with actionable errors. It writes nothing to the home folder."""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.process.tokens import read_token, token_in
from switchyard.components.process.variables import KFP_COOKIE, KFP_TOKEN
from switchyard.components.text.redaction import mask
from switchyard.pipelines.runners.kubeflow.cluster.run import Run, run_of
from switchyard.pipelines.runners.kubeflow.cluster.workflow import Workflow
from switchyard.pipelines.runners.kubeflow.contract import OLDEST_KFP
from switchyard.pipelines.runners.kubeflow.extra import require_kfp

# Path where Kubernetes mounts the token of a pod that may use KFP.
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_SECONDS = 30.0
# What KFP's page calls a store, by the scheme of its URIs.
_SOURCES = {"gs": "gcs"}
# HTTP codes for a missing resource. KFP's page answers 400 or 500 for the log of a deleted pod.
_NOT_THERE, _NO_LOG = (404, 501), (400, 404, 500, 501)
_PAGE = 50
_LOG_ERROR = re.compile(r'\s*\{\s*"error_message"\s*:')
# Exceptions raised on a response that is not KFP's: a page, a truncated response, an unexpected schema.
_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, EOFError, OSError, zlib.error)


class NoSuchRunError(UserError):
    """KFP answers that the run does not exist."""


@dataclass(frozen=True)
class Connection:
    """Connection settings of a KFP.

    Attributes:
        host: URL of KFP including its path (`https://kubeflow.example.org/pipeline`).
        namespace: the user's namespace, for a multi-user KFP.
        token_file: file with a bearer token; default: SWITCHYARD_KFP_TOKEN, then the pod's token.
        ca_cert: file with the certificate authority of the server.
        insecure: do not verify the server's certificate.
        timeout: timeout of a request in seconds.
    """

    host: str
    namespace: str | None = None
    token_file: Path | None = None
    ca_cert: Path | None = None
    insecure: bool = False
    timeout: float = _SECONDS


class KubeflowClient:
    """Experiments, runs, recurring runs and logs of one KFP.

    Raises:
        UserError: from every method, when the server is unreachable, rejects the request, or is no KFP v2.
    """

    def __init__(self, connection: Connection) -> None:
        require_kfp()
        import kfp_server_api

        # urllib3's warnings repeat the errors.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        host = connection.host.rstrip("/")
        if "://" not in host:
            raise UserError(f"--host {connection.host!r}: must be a URL with its scheme, for example https://{host}")
        for key, path in (("--token-file", connection.token_file), ("--ca-cert", connection.ca_cert)):
            if path is not None and not path.is_file():
                raise UserError(f"{key}: {path}: no such file")
        self.connection, self.host = connection, host
        config = kfp_server_api.Configuration(host=host)
        config.verify_ssl = not connection.insecure
        config.ssl_ca_cert = str(connection.ca_cert) if connection.ca_cert else None
        # One retry; a server that fails twice counts as down.
        config.retries = 1
        token = _token(connection)
        if token:
            config.api_key["authorization"] = token
            config.api_key_prefix["authorization"] = "Bearer"
        self._api = kfp_server_api
        self._client = _json_client(kfp_server_api)(config, cookie=_cookie())
        self._runs = kfp_server_api.RunServiceApi(self._client)
        # Keyword arguments of every call of the generated client.
        self.given: dict[str, Any] = {"_request_timeout": connection.timeout}

    def check(self) -> None:
        """Checks that a KFP v2 answers and grants access."""
        self.health()

    def health(self) -> dict[str, Any]:
        """Returns KFP's health: `tag_name` (its version) and `multi_user`."""
        with self.errors("find Kubeflow Pipelines"):
            answer = self._get("/apis/v2beta1/healthz", missing=())
            if "json" not in (answer.getheader("Content-Type") or ""):
                raise UserError(
                    f"{self.host} answers with a web page, not KFP's API: the path is wrong (on Kubeflow it is "
                    f".../pipeline) or a login is required; give a token (--token-file, {KFP_TOKEN}) or the session's "
                    f"cookie ({KFP_COOKIE})."
                )
            return _mapping(answer.data)

    def experiment(self, name: str) -> str:
        """Returns the id of an experiment; creates it if missing."""
        service = self._api.ExperimentServiceApi(self._client)
        where = self.filter("display_name", name)
        with self.errors(f"find experiment {name!r}"):
            found = service.experiment_service_list_experiments(
                filter=where, namespace=self.connection.namespace or "", **self.given
            ).experiments
            for experiment in found or []:
                if experiment.display_name == name:
                    return str(experiment.experiment_id)
            made = service.experiment_service_create_experiment(
                self._api.V2beta1Experiment(display_name=name, namespace=self.connection.namespace), **self.given
            )
        return str(made.experiment_id)

    def submit(self, name: str, experiment_id: str, spec: Mapping[str, Any], **settings: Any) -> Run:
        """Starts a run and returns it.

        Args:
            name: name of the run.
            experiment_id: id of its experiment.
            spec: `pipeline_spec` and optionally `platform_spec`.
            settings: see `_settings`.
        """
        run = self._api.V2beta1Run(
            display_name=name, experiment_id=experiment_id, pipeline_spec=dict(spec), **self._settings(**settings)
        )
        with self.errors("start the run"):
            return run_of(self._runs.run_service_create_run(run, experiment_id=experiment_id, **self.given))

    def run(self, run_id: str) -> Run:
        """Returns a run with the states of its tasks."""
        with self.errors(f"get run {run_id}", missing=f"unknown run {run_id}; list them with switchyard runs list"):
            if not run_id.strip():
                raise NoSuchRunError("RUN: is empty; list the runs with switchyard runs list.")
            return run_of(self._runs.run_service_get_run(run_id, **self.given))

    def runs(self, experiment: str | None, limit: int) -> list[Run]:
        """Returns up to `limit` runs, newest first, of one experiment or of all."""
        found: list[Run] = []
        token = ""
        given = dict(self.given)
        if experiment:
            given["experiment_id"] = self.experiment(experiment)
        else:
            given["namespace"] = self.connection.namespace or ""
        with self.errors("list runs"):
            while len(found) < limit:
                page = self._runs.run_service_list_runs(
                    page_token=token, page_size=min(_PAGE, limit - len(found)), sort_by="created_at desc", **given
                )
                found += map(run_of, page.runs or [])
                token = page.next_page_token
                if not token or not page.runs:
                    break
        return found[:limit]

    def pipeline_of(self, run: Run) -> dict[str, Any]:
        """Returns a run's pipeline; for a run started by reference, it is fetched."""
        if run.pipeline or not run.version:
            return dict(run.pipeline or {})
        with self.errors("get the run's pipeline", missing="the run's pipeline was deleted"):
            found = (
                self.service("PipelineServiceApi").pipeline_service_get_pipeline_version(*run.version, **self.given).pipeline_spec
            )
        return dict((found or {}).get("pipeline_spec") or found or {})

    def terminate(self, run_id: str) -> None:
        """Stops a run."""
        with self.errors(f"terminate run {run_id}", missing=f"unknown run {run_id}"):
            self._runs.run_service_terminate_run(run_id, **self.given)

    def retry(self, run_id: str) -> None:
        """Retries the failed tasks of a run; succeeded tasks are kept."""
        with self.errors(f"retry run {run_id}", missing=f"unknown run {run_id}"):
            self._runs.run_service_retry_run(run_id, **self.given)

    def service(self, name: str) -> Any:
        """Returns one of the API's services by its class name in the generated client."""
        return getattr(self._api, name)(self._client)

    def model(self, name: str, **given: Any) -> Any:
        """Returns one of the API's messages by its class name in the generated client."""
        return getattr(self._api, name)(**given)

    def workflow(self, run_id: str) -> Workflow | None:
        """Returns a run's Argo Workflow; None if this KFP does not provide it (KFP 3 has no v1beta1)."""
        with self.errors(f"get the Workflow of run {run_id}"):
            answer = self._get(f"/apis/v1beta1/runs/{quote(run_id, safe='')}")
            if answer is None:
                return None
            manifest = (_mapping(answer.data).get("pipeline_runtime") or {}).get("workflow_manifest")
            return Workflow(_mapping(manifest)) if manifest else None

    def log_of_node(self, run_id: str, node: str) -> str | None:
        """Returns the log of a stage's pod by KFP's API: only of finished stages of runs that Argo did not compress."""
        with self.errors(f"read the log of {node}"):
            path = f"/apis/v1alpha1/runs/{quote(run_id, safe='')}/nodes/{quote(node, safe='')}/log"
            text = _text(self._get(path, missing=_NO_LOG))
        # KFP also answers errors with status 200.
        return None if text is None or _LOG_ERROR.match(text) else text

    def log_of_pod(self, run_id: str, pod: str, namespace: str) -> str | None:
        """Returns the log of a pod by KFP's page, also of running pods; None if the host does not serve the page."""
        query = [("podname", pod), ("runid", run_id), ("podnamespace", self.connection.namespace or namespace)]
        with self.errors(f"read the log of {pod}"):
            return _text(self._get("/k8s/pod/logs", query, _NO_LOG))

    def log_in_store(self, uri: str, namespace: str) -> str | None:
        """Returns a stored log by KFP's page; None if there is none, or the host does not serve the page."""
        place = urlsplit(uri)
        query = [("source", _SOURCES.get(place.scheme, place.scheme)), ("bucket", place.netloc), ("key", place.path.lstrip("/"))]
        query.append(("namespace", self.connection.namespace or namespace))
        with self.errors(f"read the log at {uri}"):
            return _text(self._get("/artifacts/get", query, _NO_LOG))

    def url(self, run_id: str) -> str:
        """Returns the address of a run's page."""
        return f"{self.host}/#/runs/details/{run_id}"

    def _settings(
        self,
        *,
        parameters: Mapping[str, Any],
        pipeline_root: str | None,
        service_account: str | None,
        mlflow_experiment: str,
    ) -> dict[str, Any]:
        return {
            "runtime_config": self._api.V2beta1RuntimeConfig(parameters=dict(parameters), pipeline_root=pipeline_root),
            "service_account": service_account,
            # Read by KFP's MLflow plugin, if it is on.
            "plugins_input": {"mlflow": {"experiment_name": mlflow_experiment}},
        }

    def _get(self, path: str, query: Any = (), missing: Collection[int] = _NOT_THERE) -> Any:
        """Returns the response; None for a status in `missing`. Other errors of the client are passed on."""
        try:
            return self._call(path, query)
        except self._api.ApiException as error:
            if error.status not in missing:
                raise
            return None

    def _call(self, path: str, query: Any) -> Any:
        return self._client.call_api(
            path,
            "GET",
            query_params=list(query),
            header_params={},
            auth_settings=["Bearer"],
            response_type=None,
            _return_http_data_only=True,
            _preload_content=False,
            _request_timeout=self.connection.timeout,
        )

    @staticmethod
    def filter(key: str, value: str) -> str:
        """Returns a filter for KFP's lists: `key` equals `value`."""
        return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})

    @contextmanager
    def errors(self, what: str, missing: str | None = None) -> Iterator[None]:
        """Converts the client's errors: messages name the action `what`; `missing` is the message for a 404."""
        import urllib3

        try:
            yield
        except self._api.ApiException as error:
            raise self._refused(what, error, missing) from None
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if "CERTIFICATE_VERIFY_FAILED" in str(reason):
                raise UserError(
                    f"cannot {what}: {self.host} has an untrusted certificate; give its authority with --ca-cert."
                ) from None
            raise UserError(
                f"cannot {what}: {self.host} does not answer ({str(reason).rpartition(': ')[2]}). Is it running, and is the port "
                "forwarded (kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80)?"
            ) from None
        except _UNREADABLE as error:
            why = f"{type(error).__name__}: {first_line(error)}"
            raise StageError(f"cannot {what}: {self.host} returned an answer that is not KFP's ({why})") from error

    def _refused(self, what: str, error: Any, missing: str | None) -> Exception:
        reason = _message(error)
        if error.status == 401:
            return UserError(
                f"cannot {what}: {self.host} rejects the credentials (401); give a token (--token-file, {KFP_TOKEN}) "
                f"or the session's cookie ({KFP_COOKIE})."
            )
        if error.status == 403:
            return UserError(
                f"cannot {what}: permission denied (403: {reason}); request the role kubeflow-edit in the namespace "
                f"{self.connection.namespace or '(none was given: --namespace)'}."
            )
        if error.status == 404:
            if missing and "json" in str(error.headers.get("Content-Type") if error.headers else ""):
                return NoSuchRunError(missing + ".")
            return UserError(
                f"cannot {what}: {self.host} has no /apis/v2beta1 (404): the path is wrong (on Kubeflow it is "
                f".../pipeline), or KFP is older than version 2. Switchyard needs KFP {OLDEST_KFP} or later."
            )
        if error.status in (400, 409):
            return UserError(f"cannot {what}: KFP refuses it ({error.status}: {reason})")
        return StageError(f"cannot {what}: KFP failed ({error.status}: {reason})")


def _json_client(api: Any) -> Any:
    """Returns the generated client's class with a check that responses are JSON objects; a page would become an empty message."""

    class JsonClient(api.ApiClient):
        def deserialize(self, response: Any, response_type: Any) -> Any:
            _mapping(response.data)
            return super().deserialize(response, response_type)

    return JsonClient


def _mapping(content: str | bytes) -> dict[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise TypeError(f"a {type(found).__name__} instead of an object")
    return found


def _text(answer: Any) -> str | None:
    """Returns a log's text; None when there is no log or the response is a page."""
    if answer is None or "html" in (answer.getheader("Content-Type") or ""):
        return None
    return str(answer.data.decode("utf-8", "replace"))


def _token(connection: Connection) -> str | None:
    if connection.token_file:
        return read_token(connection.token_file, "--token-file")
    if given := os.environ.get(KFP_TOKEN):
        return token_in(given, KFP_TOKEN)
    return read_token(_POD_TOKEN, "the pod's token") if _POD_TOKEN.is_file() else None


def _cookie() -> str | None:
    given = os.environ.get(KFP_COOKIE, "").strip()
    if not given.isascii() or not given.isprintable():
        raise UserError(f"{KFP_COOKIE}: must hold one line of printable ASCII, the session's cookie.")
    return given or None


def _message(error: Any) -> str:
    try:
        found = json.loads(error.body)
        text = str(found.get("error") or found.get("message") or found.get("detail") or error.reason)
    except (TypeError, ValueError, AttributeError):
        text = str(error.reason)
    return mask(" ".join(text.split()))[:500]
