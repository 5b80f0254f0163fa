"""Passwords and tokens stay out of everything that is written: a canary is looked for in workspaces and in MLflow."""

import base64
import html
import io
import json
import logging
import os
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.components.errors import UserError, first_line
from switchyard.components.text import redaction
from switchyard.components.tracking.run import client
from switchyard.pipelines.config.load import load_config
from tests.command import mlflow_server
from tests.refusing_server import served

CANARY = "cAn4ry-pass/w#rd"
IN_URI = quote(CANARY, safe="")
QUICK = ["--set", "trainer.hyperparameters.epochs=1", "--set", "evaluation.improvement=null"]


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """What a test teaches the filter is forgotten, and the variables that it sets."""
    for name in redaction.TRACKING_VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before = set(redaction._secrets)
    yield
    redaction._secrets.clear()
    redaction._secrets.update(before)
    redaction._compiled.clear()


def forms(secret):
    plain = [secret, quote(secret, safe=""), json.dumps(secret)[1:-1], html.escape(secret), f"user:{secret}"]
    return [text.encode() for text in plain] + [base64.b64encode(f"user:{secret}".encode())]


def leaks(folder, secret=CANARY):
    """Files below a folder that hold the secret in any form; databases and archives are files too."""
    files = [p for p in Path(folder).rglob("*") if p.is_file()]
    assert files
    return [p for p in files for content in [p.read_bytes()] if any(form in content for form in forms(secret))]


@pytest.mark.core
@pytest.mark.parametrize("uri", [f"user:{CANARY}@host", f"user:{CANARY}@host:5000/path"])
def test_a_password_in_an_address_without_a_scheme_is_masked_in_every_text(uri):
    assert redaction.take_credentials(uri) == uri
    assert CANARY not in redaction.mask(f"unsupported URI '{uri}' for model registry data storage")


@pytest.mark.core
def test_a_database_without_its_driver_is_an_error_that_names_the_package():
    with pytest.raises(UserError, match=r"tracking.uri: postgresql://\*\*\*@host/db needs the Python package 'psycopg"):
        client(f"postgresql://user:{IN_URI}@host/db")


@pytest.mark.core
def test_credentials_move_from_the_address_to_the_variables_that_mlflow_reads():
    assert redaction.take_credentials(f"https://user:{IN_URI}@host:5000/path?a=b") == "https://host:5000/path?a=b"
    assert redaction.tracking_variables() == {"MLFLOW_TRACKING_USERNAME": "user", "MLFLOW_TRACKING_PASSWORD": CANARY}


@pytest.mark.core
def test_credentials_move_out_of_the_address_in_the_variable_too(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{IN_URI}@host")
    redaction.take_from_environment()
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://host"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == CANARY


@pytest.mark.core
@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://user:{IN_URI}@host/db",
        f"postgresql+psycopg2://user:{CANARY}@host/db",
        f"postgresql://host/db?user=user&password={IN_URI}",
        f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Duser%3BPWD%3D{IN_URI}",
    ],
)
def test_a_databases_password_is_masked_in_any_text(uri):
    assert redaction.take_credentials(uri) == uri
    for form in forms(CANARY)[:4]:
        assert form.decode() not in redaction.mask(f"cannot open {uri}: {form.decode()!r} ({form.decode()})")


@pytest.mark.core
@pytest.mark.parametrize(
    "uri",
    [
        "https://bucket.s3.amazonaws.com/d.csv?X-Amz-Credential=AKIA&X-Amz-Signature={}",
        "https://bucket.s3.amazonaws.com/d.csv?X-Amz-Security-Token={}&x=1",
        "https://storage.googleapis.com/b/d.csv?GoogleAccessId=me&Signature={}",
        "https://account.blob.core.windows.net/c/d.csv?sv=2022&sp=r&sig={}",
        "https://host/d.csv?api-key={}",
        "https://host/d.csv?client_secret={}",
        "DefaultEndpointsProtocol=https;AccountName=me;AccountKey={};EndpointSuffix=core.windows.net",
        "s3://AKIA:{}@bucket/d.csv",
    ],
)
def test_signed_addresses_and_connection_strings_are_masked(uri):
    secret = uri.format("0canary0")
    assert "0canary0" not in redaction.mask(f"cannot read {secret}: 403")
    assert redaction.holds_credentials(secret)


@pytest.mark.core
def test_a_known_secret_that_is_part_of_a_key_leaves_the_keys_value_masked(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", {"client_secret", "abc def ghi"})
    monkeypatch.setattr(redaction, "_compiled", [])
    assert redaction.mask("GET https://host/d.csv?client_secret=0canary0&x=1") == "GET https://host/d.csv?***=***&x=1"
    assert redaction.mask("https://host/?token=abc def ghi.") == "https://host/?token=***."


@pytest.mark.core
@pytest.mark.parametrize(
    "text",
    [
        "abfss://container@account.dfs.core.windows.net/d.csv",
        "gs://bucket/part@1.csv",
        "hdfs://user@host/d.csv",
        "https://host/a?page=2&design=x",
        "http://mlflow:5000",
        "/data/[v1]/x;y=z.csv",
    ],
)
def test_addresses_without_a_secret_are_told_from_those_with_one(text):
    assert not redaction.holds_credentials(text)


@pytest.mark.core
@given(st.text(min_size=redaction._SURE), st.text("ab%'\"\\ <&:@/", max_size=9), st.text("ab%'\"\\ <&:@/", max_size=9))
def test_a_password_of_any_characters_is_masked_in_every_encoding(password, before, after):
    secret = password.strip()
    if len(secret) < redaction._SURE:
        return
    redaction.remember(secret)
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1], html.escape(secret)):
        assert form not in redaction.mask(f"{before} {form} {after}")


@pytest.mark.core
@pytest.mark.parametrize(
    "variable",
    [
        "SWITCHYARD_KFP_TOKEN",
        "SWITCHYARD_KFP_COOKIE",
        "MLFLOW_TRACKING_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "GHTOKEN",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_CONNECTION_STRING",
        "OPENAI_APIKEY",
    ],
)
def test_secrets_in_variables_are_known(monkeypatch, variable):
    monkeypatch.setenv(variable, f"session={CANARY}; path=/" if variable.endswith("COOKIE") else CANARY)
    redaction._compiled.clear()
    assert CANARY not in redaction.mask(f"KFP said: {CANARY}")
    monkeypatch.delenv(variable)


@pytest.mark.core
def test_a_short_password_does_not_mask_parts_of_words():
    redaction.take_credentials("postgresql://user:flow@host/db")
    assert redaction.mask("mlflow: flow, postgresql://user:flow@host") == "mlflow: ***, postgresql://***@host"


@pytest.mark.core
def test_an_ordinary_word_in_a_variable_is_no_secret(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "auto")
    redaction._compiled.clear()
    assert redaction.mask("task: auto") == "task: auto"
    monkeypatch.delenv("SOME_TOKEN")


@pytest.mark.core
def test_texts_without_secrets_are_unchanged():
    for text in ("models:/name@champion", "gs://bucket/part@1.csv", "a@b.c", "https://host/a?page=2", "see http://host/x y@z"):
        assert redaction.mask(text) == text


@pytest.mark.core
def test_first_lines_records_and_traces_are_masked(monkeypatch):
    redaction.remember(CANARY)
    error = ValueError(f"no host at {CANARY}\nmore")
    assert first_line(error) == "no host at ***"
    out = io.StringIO()
    handler = logging.StreamHandler(out)  # as libraries make it, on a stream that they have taken before
    monkeypatch.setattr("sys.stderr", io.StringIO())
    make = logging.getLogRecordFactory()
    log = logging.Logger("a library")
    log.addHandler(handler)
    try:
        redaction.install()
        try:
            raise error
        except ValueError:
            log.exception("asked %s", CANARY)
    finally:
        logging.setLogRecordFactory(make)
    assert "asked ***" in out.getvalue()
    assert "no host at ***" in out.getvalue()
    assert CANARY not in out.getvalue()


@pytest.mark.core
@pytest.mark.parametrize(
    "override", [f"tracking.uri=htp://user:{IN_URI}@host", f"tracking=http://{'u' * 60}:{IN_URI}@host", f"tracking.uri={IN_URI}@"]
)
def test_a_refused_address_is_refused_without_its_password(warm, tmp_path, override):
    (tmp_path / "d.csv").write_text("x,y\n1,2\n")
    done = warm("run", "--data", tmp_path / "d.csv", "--label", "y", "--set", override, "--workspace", tmp_path / "w")
    assert done.code == 2, done.stderr
    if "://" in override:
        assert IN_URI[:12] not in done.stderr + done.stdout


@pytest.mark.core
def test_a_secret_option_of_beams_is_not_in_the_recorded_config():
    document = {"name": "x", "data": {"path": "a.csv"}, "label": "y", "beam": {"options": {"s3_secret_access_key": CANARY}}}
    config = load_config(None, document=document)
    assert CANARY not in config.public_yaml()
    assert config.beam.options["s3_secret_access_key"] == CANARY


@pytest.mark.core
@pytest.mark.parametrize("uri", [f"http://user:{IN_URI}@host", f"https://host/?token={IN_URI}"])
def test_a_tracking_servers_password_is_not_compiled(uri):
    from switchyard.pipelines.api.compile import _tracking_server

    document = {"name": "x", "data": {"path": "d.csv"}, "label": "y", "tracking": {"uri": uri}}
    with pytest.raises(UserError, match=r"^tracking.uri: contains a password") as refused:
        _tracking_server(load_config(None, document=document), submitting=False)
    assert IN_URI not in str(refused.value)


@pytest.mark.core
def test_kfps_errors_do_not_repeat_the_token(monkeypatch, tmp_path):
    from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient

    (tmp_path / "token").write_text(f"{CANARY}\n")
    monkeypatch.setenv("SWITCHYARD_KFP_COOKIE", f"authservice_session={CANARY}cookie")

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"error": f"bad: {self.headers['authorization']} {self.headers['cookie']}"}).encode()
            self.send_response(400)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with served(Echo) as url, pytest.raises(UserError) as refused:
        KubeflowClient(Connection(url, token_file=tmp_path / "token")).check()
    assert "400" in str(refused.value)
    assert CANARY not in str(refused.value)


@contextmanager
def guarded(url):
    """A proxy that lets in who knows the canary, and repeats in its refusals what it was sent, as proxies do."""
    wanted = "Basic " + base64.b64encode(f"user:{CANARY}".encode()).decode()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self):
            body = (
                self._chunks()
                if "transfer-encoding" in self.headers
                else self.rfile.read(int(self.headers["content-length"] or 0))
            )
            given = self.headers.get("authorization")
            if given != wanted:
                self._answer(401, {"content-type": "text/plain"}, f"who is {given}?".encode())
                return
            headers = {
                k: v
                for k, v in self.headers.items()
                if k.lower() not in ("host", "authorization", "transfer-encoding", "content-length")
            }
            request = urllib.request.Request(
                url + self.path, body if self.command != "GET" else None, headers, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self._answer(answer.status, dict(answer.headers), answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, dict(error.headers), error.read())

        def _chunks(self):  # of an empty file
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
            return found

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

        def _answer(self, status, headers, body):
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with served(Proxy) as proxy:
        yield proxy.removeprefix("http://")


MODEL = """
import os
import torch

def build_model(spec):
    raise RuntimeError(f"cannot reach {os.environ['MLFLOW_TRACKING_URI']} with {os.environ.get('MLFLOW_TRACKING_PASSWORD')}")
"""
FEATURES = """
import os
import sys

def preprocessing_fn(inputs):
    print("asked", os.environ["MLFLOW_TRACKING_URI"], os.environ.get("MLFLOW_TRACKING_PASSWORD"))
    print("asked", os.environ["MLFLOW_TRACKING_URI"], file=sys.stderr)
    return inputs["no such"]
"""


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "d.csv"
    file.write_text("x,z,y\n" + "".join(f"{i % 97},{i % 7},{int(i % 97 > 48)}\n" for i in range(600)))
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "features.py").write_text(FEATURES)
    return file


def test_a_finished_run_leaves_no_password_in_any_file(warm, tmp_path, data):
    """In the workspace, and in MLflow's database and files."""
    server = tmp_path / "server"
    server.mkdir()
    workspace = tmp_path / "w"
    with mlflow_server(server) as url, guarded(url) as host:
        uri = f"http://user:{IN_URI}@{host}"
        done = warm(
            "run", "--data", data, "--label", "y", "--set", f"tracking.uri={uri}", *QUICK, "--workspace", workspace, "--json"
        )
        assert done.code in (0, 4), done.stderr
        assert "MLflow was unreachable" not in done.stderr
        listed = warm("models", "list", "--tracking-uri", uri, env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
        assert listed.code == 0, listed.stderr
        refused = warm("models", "list", "--tracking-uri", f"http://user:{IN_URI}x@{host}")
        assert refused.code != 0
        assert CANARY not in refused.stderr + refused.stdout
    assert leaks(workspace) == []
    assert leaks(server) == []
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("check", ["label=none"]),
        ("data_gate", ["validation.schema=SCHEMA"]),
        ("transform", ["preprocessing=features.py"]),
        ("training", ["trainer.framework=pytorch", "trainer.model=model.py"]),
    ],
)
def test_a_run_that_fails_while_its_server_is_unreachable_leaves_no_password(warm, tmp_path, data, stage, settings, scheme):
    (tmp_path / "schema.pbtxt").write_text('feature { name: "x" type: BYTES presence { min_fraction: 1 } }\n')
    named = [s.replace("SCHEMA", "schema.pbtxt") for s in settings]
    overrides = [word for setting in named for word in ("--set", setting)]
    uri = f"{scheme}://user:{IN_URI}@127.0.0.1:9" + ("" if scheme == "http" else "/db")
    done = warm(
        *("run", "--data", "d.csv", "--label", "y", *overrides, *QUICK, "--workspace", tmp_path / "w"),
        cwd=tmp_path,
        env={"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    )
    assert done.code not in (0, 4), done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert IN_URI not in done.stdout + done.stderr
    # What the check refuses leaves nothing behind at all.
    assert not (tmp_path / "w").exists() if stage == "check" else leaks(tmp_path / "w") == []


def test_records_uploaded_later_contain_no_password(warm, tmp_path, data):
    server, workspace = tmp_path / "server", tmp_path / "w"
    server.mkdir()
    away = {"MLFLOW_TRACKING_URI": f"postgresql://user:{IN_URI}@127.0.0.1:9/db"}
    first = warm(
        *("run", "--data", "d.csv", "--label", "y", "--set", "trainer.framework=pytorch", "--set", "trainer.model=model.py"),
        *("--workspace", workspace),
        cwd=tmp_path,
        env=away,
    )
    assert first.code == 2, first.stderr
    assert leaks(workspace) == []
    with mlflow_server(server) as url, guarded(url) as host:
        sent = warm("upload", "--workspace", workspace, env={"MLFLOW_TRACKING_URI": f"http://user:{IN_URI}@{host}"})
        assert sent.code == 0, sent.stderr
    assert leaks(server) == []
