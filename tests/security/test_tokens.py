"""A token that is lost or cannot be sent opens no server and is shown nowhere."""

import pytest

from switchyard.components.errors import UserError
from switchyard.components.process.variables import KFP_COOKIE, KFP_TOKEN, SERVE_TOKEN
from switchyard.components.text.redaction import mask
from switchyard.pipelines.api.serve import _token
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient

pytestmark = pytest.mark.core
UNUSABLE = {
    "empty": "",
    "white space": " \n",
    "two": "s3cret-a s3cret-b",
    "lines": "s3cret-a\nx: y",
    "no ASCII": "s3cret-ä",
    "NUL": "s3cret\0",
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_server_with_an_invalid_token_does_not_start(case, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(UNUSABLE[case])
    with pytest.raises(UserError, match="must hold one token") as refused:
        _token(tmp_path / "token")
    assert "s3cret" not in str(refused.value)
    if "\0" not in UNUSABLE[case]:
        monkeypatch.setenv(SERVE_TOKEN, UNUSABLE[case])
        with pytest.raises(UserError, match=f"{SERVE_TOKEN} .* must hold one token") as refused:
            _token(None)
        assert "s3cret" not in str(refused.value)


def test_a_server_starts_without_a_token_if_none_is_configured(monkeypatch):
    monkeypatch.delenv(SERVE_TOKEN, raising=False)
    assert _token(None) is None


def test_a_servers_token_is_masked_in_later_messages(tmp_path, monkeypatch):
    (tmp_path / "token").write_bytes(b"canary-of-a-file\r\n")
    monkeypatch.setenv(SERVE_TOKEN, "canary-of-a-variable\n")

    assert [_token(tmp_path / "token"), _token(None)] == ["canary-of-a-file", "canary-of-a-variable"]
    assert mask("x canary-of-a-file canary-of-a-variable") == "x *** ***"


@pytest.mark.parametrize("case", [c for c in UNUSABLE if c != "empty" and c != "white space"])
def test_a_token_that_is_no_valid_header_is_not_sent_to_kfp(case, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(UNUSABLE[case])
    with pytest.raises(UserError, match=r"--token-file: .* must hold one token"):
        KubeflowClient(Connection("http://127.0.0.1:9", token_file=tmp_path / "token"))
    if "\0" not in UNUSABLE[case]:
        monkeypatch.setenv(KFP_TOKEN, UNUSABLE[case])
        with pytest.raises(UserError, match=f"{KFP_TOKEN} .* must hold one token"):
            KubeflowClient(Connection("http://127.0.0.1:9"))


@pytest.mark.parametrize("cookie", ["session=a\nx: y", "session=ä"])
def test_a_cookie_that_is_no_valid_header_is_not_sent_to_kfp(cookie, monkeypatch):
    monkeypatch.setenv(KFP_COOKIE, cookie)
    with pytest.raises(UserError, match=f"{KFP_COOKIE}: must hold one line"):
        KubeflowClient(Connection("http://127.0.0.1:9"))
