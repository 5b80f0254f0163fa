"""The server as clients see it: a process of its own, HTTP, the bundles of all trainers."""

import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from switchyard.components.bundle.model import bundle_info, bundle_path, load_bundle
from switchyard.components.serving.client import records, tensors
from tests.command import free_port, switchyard
from tests.serving.server import serving, start_server, until_ready


@pytest.fixture(scope="module")
def server(bundles, tmp_path_factory):
    with serving(bundles["pytorch"], tmp_path_factory.mktemp("serve") / "log", "--max-rows", 500, name="breast_cancer") as found:
        yield found


@pytest.fixture(scope="module")
def info(bundles):
    return bundle_info(bundles["pytorch"])


@pytest.fixture(scope="module")
def rows(info, workspace, eval_rows):
    return eval_rows(workspace, info.features)


def test_served_scores_equal_the_evaluated_ones_on_every_row(bundles, workspace, digits, regression, eval_rows, tmp_path):
    """Both frameworks and a trainer of the user's own; both examples, texts and missing values; both protocols."""
    cases = {name: (folder, workspace) for name, folder in bundles.items()}
    for stage in ("training_tensorflow", "training_pytorch"):
        [model] = (digits[0] / "artifacts" / stage / "model").iterdir()
        cases[f"digits_{stage}"] = (model, digits[0])
    messy = regression[0] / "w"
    model = min((messy / "artifacts" / "training" / "model").iterdir(), key=lambda f: int(f.name))
    cases["messy"] = (model, messy)
    assert len(cases) == 6
    for name, (folder, place) in cases.items():
        model_folder = bundle_path(folder) if bundle_path(folder).is_dir() else folder
        features = bundle_info(model_folder).features
        frame = eval_rows(place, features)
        evaluated = load_bundle(model_folder).predict(frame)
        with serving(folder, tmp_path / f"{name}.log", name="m") as server:
            status, _, answer = server.infer(tensors(frame, features))
            assert status == 200, answer
            for output in answer["outputs"]:
                check(evaluated[output["name"]], output["data"])
            status, _, answer = server.request("/invocations", {"dataframe_records": records(frame, features)})
            assert status == 200, answer
            for column in evaluated:
                check(evaluated[column], [row[column] for row in answer["predictions"]])


def check(evaluated, served):
    if evaluated.dtype.kind == "f":
        np.testing.assert_allclose(served, evaluated, atol=1e-5)
    else:
        assert list(evaluated) == served


@pytest.mark.core
def test_metadata_and_health_follow_the_protocol(server, info):
    assert server.request("/v2")[2]["name"] == "switchyard"
    assert server.request("/v2/health/live")[0] == 200
    assert server.request("/v2/models/breast_cancer/ready")[2] == {"name": "breast_cancer", "ready": True}
    found = server.request("/v2/models/breast_cancer")[2]
    assert {i["name"] for i in found["inputs"]} == {f.name for f in info.features}
    assert [o["name"] for o in found["outputs"]] == ["prediction", "probability"]
    assert server.request("/ping")[0] == 200
    assert server.request("/version")[2].startswith("3.")
    assert server.request("/v2/models/other")[0] == 404
    assert server.request("/v2/models/breast_cancer/versions/77/ready")[0] == 404
    assert server.request("/v2/models/breast_cancer/infer")[0] == 405


@pytest.mark.core
def test_the_protocols_reference_client_gets_the_bundles_answers(server, info, rows, bundles):
    """Triton's client, which KServe and Triton document: JSON and binary tensors, texts as BYTES."""
    import tritonclient.http as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("breast_cancer")
    assert len(client.get_model_metadata("breast_cancer")["inputs"]) == 30
    expected = load_bundle(bundles["pytorch"]).predict(rows)
    for binary in (False, True):
        inputs = []
        for feature in info.features:
            values = rows[feature.name].to_numpy().astype(np.float32)
            tensor = triton.InferInput(feature.name, [len(values)], "FP32")
            tensor.set_data_from_numpy(values, binary_data=binary)
            inputs.append(tensor)
        for wanted in (None, [triton.InferRequestedOutput("probability", binary_data=binary)]):
            answer = client.infer("breast_cancer", inputs, request_id="mine", outputs=wanted)
            np.testing.assert_allclose(answer.as_numpy("probability"), expected["probability"], atol=1e-5)
            assert answer.get_response()["id"] == "mine"
            assert (answer.as_numpy("prediction") is None) == (wanted is not None)
            if wanted is None:
                texts = [v.decode() if isinstance(v, bytes) else v for v in answer.as_numpy("prediction")]
                assert texts == list(expected["prediction"])


@pytest.mark.core
def test_every_mlflow_input_format_gets_the_same_answer(server, info, rows):
    few = rows.head(3)
    plain = records(few, info.features)
    split = {"columns": list(plain[0]), "data": [list(r.values()) for r in plain]}
    bodies = [{"dataframe_split": split}, {"dataframe_records": plain}, {"instances": plain}, {"inputs": plain}]
    bodies.append({"inputs": {k: [r[k] for r in plain] for k in plain[0]}})
    answers = [server.request("/invocations", body) for body in bodies]
    csv = few.to_csv(index=False).encode()
    answers.append(server.request("/invocations", csv, {"content-type": "text/csv"}))
    assert {status for status, _, _ in answers} == {200}
    first = answers[0][2]["predictions"]
    for _, _, answer in answers:
        for one, other in zip(answer["predictions"], first, strict=True):
            assert one["prediction"] == other["prediction"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


@pytest.mark.core
def test_values_that_do_not_fit_are_refused_by_name(server, info, rows):
    good = tensors(rows.head(2), info.features)
    area = next(i for i, t in enumerate(good) if t["name"] == "mean_area")

    def with_area(**changes):
        return [*good[:area], {**good[area], **changes}, *good[area + 1 :]]

    cases = {
        "'mean_area' is missing": [t for t in good if t["name"] != "mean_area"],
        "'wrong' is unknown": [*good, {**good[0], "name": "wrong"}],
        "'diagnosis' is unknown. It is the label": [
            *good,
            {"name": "diagnosis", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
        ],
        "is a duplicate": [*good, good[0]],
        "takes numbers, received 'x'": with_area(data=["x", 1.0]),
        "must hold numbers": with_area(datatype="BYTES", data=["x", "y"]),
        "takes 3 values": with_area(shape=[3]),
        "has 3 rows where": with_area(shape=[3], data=[1.0, 2.0, 3.0]),
        "must not be missing (row 1)": with_area(data=[1.0, None]),
        "numbers that fit float32 (row 0), received 1e+300": with_area(data=[1e300, 1.0]),
        "datatype 'FP99' is not one of": with_area(datatype="FP99"),
        "'shape' must be": with_area(shape="2"),
        "one value per row, received the shape [2, 2]": with_area(shape=[2, 2], data=[1.0, 2.0, 3.0, 4.0]),
        "no rows": [{**t, "shape": [0], "data": []} for t in good],
    }
    for words, inputs in cases.items():
        status, _, answer = server.infer(inputs)
        assert status == 400, (words, answer)
        assert words in answer["error"], (words, answer)
        if "mean_area" in words or inputs[area].get("data") != good[area]["data"]:
            assert "mean_area" in answer["error"] or "column" in answer["error"] or "no rows" in answer["error"]
    assert server.request("/v2/models/breast_cancer/infer", b"{")[0] == 400
    assert server.request("/v2/models/breast_cancer/infer", b'{"inputs": [{"name": "a", "data": [NaN]}]}')[0] == 400
    status, _, answer = server.infer(good, outputs=[{"name": "nothing"}])
    assert status == 400
    assert "Outputs: prediction, probability" in answer["error"]
    big = tensors(rows.sample(501, replace=True), info.features)
    assert server.infer(big)[0] == 413
    assert server.request("/invocations", b"x" * (17 << 20))[0] == 413
    assert server.request("/invocations", b"x", {"content-type": "image/png"})[0] == 415
    assert server.infer(good)[0] == 200


def test_fuzzed_requests_are_answered_as_the_openapi_document_states(server):
    """Schemathesis: no 5xx, only documented statuses and shapes, what the document refuses is refused."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = ["schemathesis", "run", f"{server.url}/openapi.json", "--checks", checks, "--max-examples", "40", "--seed", "1"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.core
def test_batches_do_not_mix_answers(server, info, rows, bundles):
    """Many clients at once, some with requests that are refused: everyone gets the answer to their own rows."""
    expected = load_bundle(bundles["pytorch"]).predict(rows)["probability"].to_numpy()
    bodies = [tensors(rows.iloc[[i]], info.features) for i in range(len(rows))]

    def ask(i):
        if i % 7 == 0:
            assert server.infer(bodies[i % len(rows)][1:])[0] == 400
        status, _, answer = server.infer(bodies[i % len(rows)])
        return status, answer["outputs"][1]["data"][0]

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(4 * len(rows))))
    assert {status for status, _ in answers} == {200}
    np.testing.assert_allclose([p for _, p in answers], np.tile(expected, 4), atol=1e-5)
    batches, total = server.metric("switchyard_batch_rows_count"), server.metric("switchyard_batch_rows_sum")
    assert batches < total, "requests were batched"


@pytest.mark.core
def test_a_request_is_counted_and_logged_by_its_id(server, info, rows):
    body = {"inputs": tensors(rows.head(2), info.features)}
    headers = {"content-type": "application/json", "x-request-id": "abc-1"}
    _, answered, _ = server.request("/v2/models/breast_cancer/infer", body, headers)
    assert answered["x-request-id"] == "abc-1"
    assert answered["x-model-version"]
    entry = server.logged(id="abc-1")
    assert (entry["status"], entry["rows"], entry["method"]) == (200, 2, "POST")
    assert server.metric('switchyard_requests_total{code="200",route="/v2/models/{model}/infer"') >= 1
    assert server.metric('switchyard_model{framework="pytorch"') == 1


def test_a_full_queue_a_missing_token_and_a_sigterm_lose_no_answer(bundles, info, rows, tmp_path):
    """A server with a short queue and a token: 503 with Retry-After under load, 401, and SIGTERM loses no answer."""
    (tmp_path / "token").write_text("s3cret\n")
    limits = ["--queue", 4, "--batch-rows", 1, "--token-file", tmp_path / "token", "--drain", 5]
    with serving(bundles["tensorflow"], tmp_path / "log", *limits, name="m") as server:
        one = {"inputs": tensors(rows.head(1), info.features)}
        many = {"inputs": tensors(rows.sample(5000, replace=True, random_state=1), info.features)}
        assert server.request("/v2/models/m/infer", one)[0] == 401
        assert server.request("/metrics")[0] == 401
        headers = {"content-type": "application/json", "authorization": "Bearer s3cret"}

        def ask(body):
            status, answered, _ = server.request("/v2/models/m/infer", body, headers)
            return status, answered.get("retry-after")

        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, [one] * 400))
        assert set(answers) == {(200, None), (503, "1")}
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, many) for _ in range(4)]
            time.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert server.request("/v2/health/ready")[0] == 503, "draining"
            assert server.request("/v2/health/live")[0] == 200
            assert {f.result() for f in asked} == {(200, None)}
        assert server.process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert "s3cret" not in (tmp_path / "log").read_text()


def test_a_server_with_a_certificate_answers_over_tls(bundles, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    options = ["--tls-cert", cert, "--tls-key", key]
    server = start_server(bundles["tensorflow"], tmp_path / "log", *options, name="m", scheme="https")
    try:
        until_ready(server, context=ssl.create_default_context(cafile=cert))
    finally:
        server.stop()


def test_serve_refuses_invalid_arguments(bundles, workspace, tmp_path):
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = switchyard("serve", bundles["tensorflow"], "--port", port, "--trust")
    assert done.code == 2
    assert "Choose another port" in done.stderr
    cases = {
        ("breast_cancer@no_alias",): "has no version or alias 'no_alias'",
        ("nothing@champion",): "unknown registered model 'nothing'",
        (str(tmp_path),): "not a Switchyard model bundle",
        ("nowhere",): "NAME@ALIAS",
        (str(bundles["tensorflow"]), "--canary", "10"): "needs a registered model",
        (str(bundles["tensorflow"]), "--tls-cert", "x"): "give both",
    }
    for arguments, words in cases.items():
        done = switchyard("serve", *arguments, "--workspace", workspace, "--trust")
        assert done.code == 2, (arguments, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
