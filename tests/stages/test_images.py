"""Columns of images: paths, base64 and bytes are one image; what is none is a bad row, in training and in serving alike."""

import base64
import io
import json
import os
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from PIL import Image

from switchyard.components.bundle.model import BundleInfo, training_data
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.serving_sample import sample_statistics
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.images import data_fingerprint, images_of_input, with_images
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.readers import READERS
from switchyard.components.ingest.scan import read_batches, scan
from switchyard.components.serving import invocations
from switchyard.components.serving.bounds import Bounds, InputError
from switchyard.components.serving.inputs import columns_of
from switchyard.components.transform.preprocessing import preprocessing_fn
from switchyard.components.values.conversion import fit_rows
from switchyard.components.values.images import fault, pixels
from switchyard.components.values.raw_features import RawFeature
from switchyard.pipelines.api.predict import _Files, _plan
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow.local_inputs import local_inputs
from switchyard.pipelines.runners.local.last_run import settings_digest
from switchyard.pipelines.workspace import Workspace
from tests.registries import bundle_with_images

SHAPE = (8, 6, 3)
FEATURE = RawFeature("photo", "string", 1, meaning="text", missing=[""], is_bytes=True, image=SHAPE)
INFO = BundleInfo("pytorch", "pytorch", "binary", "y", [0, 1], [FEATURE])


def encoded(kind="PNG", mode="RGB", size=(24, 32), seed=0):
    values = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, kind)
    return file.getvalue()


PNG, JPEG, OTHER = encoded(), encoded("JPEG"), encoded(seed=1)


def bomb(width=100_000, height=100_000):
    """A PNG with the header of a large image of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def b64(value):
    return base64.b64encode(value).decode()


def spec(path, **settings):
    given = {"max_bad_rows": 0, "images": {"photo": SHAPE}, "columns": {"photo": "text"}, **settings}
    return InputSpec(
        path=[str(path)], weights={"train": 1, "eval": 1}, format="auto", exclude=[], label="y", task="binary", **given
    )


def images_in(path, **settings):
    bad = BadRows(2**31)
    batches = read_batches(spec(path, **settings), str(path), bad)
    return [v for batch in batches for v in batch.column("photo").to_pylist()], [s["reason"] for s in bad.samples]


def csv(folder, values):
    pd.DataFrame({"photo": values, "y": [i % 2 for i in range(len(values))]}).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(PNG)
    (folder / "images" / "b.jpg").write_bytes(JPEG)
    (tmp_path / "secret.png").write_bytes(OTHER)
    return folder


def test_paths_base64_and_bytes_are_the_same_images_in_every_format(photos):
    rows = pd.DataFrame({"photo": [PNG, JPEG], "y": [0, 1]})
    rows.to_parquet(photos / "bytes.parquet")
    rows.assign(photo=["images/a.png", "images/b.jpg"]).to_parquet(photos / "paths.parquet")
    rows.assign(photo=["images/a.png", b64(JPEG)]).to_csv(photos / "both.csv", index=False)
    lines = [{"photo": {"b64": b64(PNG)}, "y": 0}, {"photo": {"b64": b64(JPEG)}, "y": 1}]
    (photos / "bytes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    lines = [{"photo": "images/a.png", "y": 0}, {"photo": "./images/../images/b.jpg", "y": 1}]
    (photos / "paths.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("bytes.parquet", "paths.parquet", "both.csv", "bytes.jsonl", "paths.jsonl"):
        assert images_in(photos / name) == ([PNG, JPEG], []), name


BAD = {
    "has no image": None,
    "names no file in the folder of the data": "images/none.png",
    "names a file outside of the folder of the data": "../secret.png",
    "must hold JPEG or PNG images, their paths or their base64": "not an image",
    "must hold JPEG or PNG images": b64(b"GIF89a not ours"),
    "must hold complete images": b64(PNG[: len(PNG) // 2]),
    "must hold images of at most 25,000,000 pixels": b64(bomb()),
}


@pytest.mark.parametrize(("reason", "value"), BAD.items(), ids=list(BAD))
def test_what_is_no_image_is_a_bad_row_with_the_reason(reason, value, photos):
    path = csv(photos, ["images/a.png", value])
    assert images_in(path) == ([PNG], [f"row 1: column 'photo' {reason}"])
    with pytest.raises(UserError, match=r"1 bad row, data\.max_bad_rows allows 0"):
        scan(spec(path), BadRows(0))


def test_a_file_without_the_column_of_images_is_refused(photos):
    path = csv(photos, ["images/a.png", "images/b.jpg"])
    with pytest.raises(UserError, match=r"data\.columns: .*rows.csv has no column 'foto'\. Did you mean 'photo'"):
        scan(spec(path, images={"foto": SHAPE}, columns={"foto": "text"}), BadRows(0))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_large_image_that_pillow_only_warns_of_is_refused():
    assert fault(bomb(12_000, 9_000), 3) == "must hold images of at most 25,000,000 pixels"


def test_no_path_leads_out_of_the_folder_of_the_data(photos):
    (photos / "link.png").symlink_to(photos.parent / "secret.png")
    (photos / "up").symlink_to(photos.parent)
    os.mkfifo(photos / "pipe.png")
    absolute = str(photos.parent / "secret.png")
    values = ["link.png", "up/secret.png", absolute, "images/../../secret.png", "pipe.png", "/dev/zero.x"]
    found, reasons = images_in(csv(photos, values))
    assert found == []
    assert len(reasons) == len(values)
    assert images_of_input(spec(photos / "rows.csv"), [str(photos / "rows.csv")], "auto") == []


def test_a_path_in_an_object_store_does_not_leave_its_folder():
    from switchyard.components.ingest.images import _place

    assert _place("gs://b/data/rows.csv", "images/a.png") == "gs://b/data/images/a.png"
    for path in ("../a.png", "images/../../a.png", "/a.png", "s3://other/a.png"):
        assert _place("gs://b/data/rows.csv", path) == ""


def test_a_peek_reads_headers_only(photos):
    path = csv(photos, ["images/a.png", b64(PNG[: len(PNG) // 2])])
    bad = BadRows(0)
    scan(spec(path), bad, peek=True)
    assert bad.count == 0


def test_the_first_images_may_all_be_of_one_class(photos, monkeypatch):
    monkeypatch.setattr("switchyard.components.ingest.scan.PEEK_IMAGES", 64)
    pd.DataFrame({"photo": ["images/a.png"] * 100, "y": [0] * 70 + [1] * 30}).to_csv(photos / "rows.csv", index=False)
    assert scan(spec(photos / "rows.csv"), BadRows(0), peek=True).is_partial
    found = scan(spec(photos / "rows.csv"), BadRows(0))
    assert (found.classes, found.is_partial) == ([0, 1], False)


def test_a_changed_image_changes_the_datas_fingerprint(photos):
    path = csv(photos, ["images/a.png", "images/b.jpg", "images/none.png"])
    before = data_fingerprint(spec(path))
    assert data_fingerprint(spec(path)) == before
    (photos / "images" / "a.png").write_bytes(OTHER)
    assert data_fingerprint(spec(path)) != before


def test_an_image_that_moves_to_the_place_of_a_missing_one_changes_the_datas_fingerprint(photos):
    path = csv(photos, ["images/a.png", "other/a.png"])
    before = data_fingerprint(spec(path))
    (photos / "other").mkdir()
    (photos / "images" / "a.png").rename(photos / "other" / "a.png")
    assert data_fingerprint(spec(path)) != before


def test_parts_of_predictions_are_not_resumed_with_a_changed_image(photos, tmp_path):
    rows = csv(photos, ["images/a.png", "images/b.jpg"])
    bundle_with_images(tmp_path / "model", "photo")
    wanted = _Files((str(rows),), tmp_path / "out.csv", "auto", (), None, (), fresh=False)
    summary = DatasetSummary.load(str(training_data(tmp_path / "model")))
    before = _plan(tmp_path / "model", summary, {str(rows): "csv"}, "csv", wanted)
    assert _plan(tmp_path / "model", summary, {str(rows): "csv"}, "csv", wanted) == before
    (photos / "images" / "a.png").write_bytes(OTHER)
    assert _plan(tmp_path / "model", summary, {str(rows): "csv"}, "csv", wanted) != before


def test_a_run_with_a_changed_image_in_the_serving_sample_is_not_the_last_one(photos, tmp_path):
    rows, sample = csv(photos, ["images/a.png", "images/b.jpg"]), photos / "served.jsonl"
    sample.write_text(json.dumps({"photo": "images/c.png"}))
    (photos / "images" / "c.png").write_bytes(PNG)
    data = {"path": str(rows), "format": "csv", "columns": {"photo": {"type": "image", "size": [8, 6]}}}
    document = {"name": "x", "data": data, "label": "y", "validation": {"serving_sample": str(sample)}, "task": "binary"}
    config = load_config(None, document=document)
    before = settings_digest(config, Workspace(tmp_path / "w"))
    assert settings_digest(config, Workspace(tmp_path / "w")) == before
    (photos / "images" / "c.png").write_bytes(OTHER)
    assert settings_digest(config, Workspace(tmp_path / "w")) != before
    assert photos / "images" / "c.png" in [f for _, _, files in local_inputs(config) for f in files]


def test_pixels_are_those_of_tensorflows_decoder_resized():
    values = tf.constant([PNG, JPEG, b""])
    found = pixels(values, SHAPE).numpy()
    expected = tf.image.resize(tf.io.decode_png(PNG, channels=3), SHAPE[:2], antialias=True).numpy() / 255
    np.testing.assert_array_equal(found[0], expected)
    assert found.dtype == np.float32
    assert found.shape == (3, *SHAPE)
    assert 0 <= found.min() < found.max() <= 1
    assert not found[2].any()
    grey = pixels(tf.constant([encoded(mode="L"), encoded("JPEG", "L"), PNG]), (24, 32, 1)).numpy()
    np.testing.assert_allclose(grey[0, ..., 0] * 255, np.asarray(Image.open(io.BytesIO(encoded(mode="L")))), atol=1e-3)


def test_preprocessing_gets_pixels_by_the_columns_key():
    given = {"photo": tf.constant([[PNG], [JPEG]]), "y": tf.constant([[0], [1]], tf.int64)}
    facts = {"label": "y", "labels": ["y"], "classes": [0, 1], "unusable": [], "code": None, "images": {"photo": SHAPE}}
    found = preprocessing_fn(given, facts)
    np.testing.assert_array_equal(found["photo"], pixels(tf.constant([PNG, JPEG]), SHAPE))


def asked(*values):
    body = json.dumps({"instances": [{"photo": v} for v in values]}).encode()
    return columns_of(INFO, invocations.decode(body, "application/json", INFO))[0]["photo"].ravel().tolist()


def test_a_server_accepts_base64_and_refuses_what_is_no_image():
    assert asked({"b64": b64(PNG)}, b64(JPEG)) == [PNG, JPEG]
    for value, reason in (
        ({"b64": b64(PNG[:40])}, r"column 'photo' must hold complete images \(row 1\), received"),
        ({"b64": b64(bomb())}, r"column 'photo' must hold images of at most 25,000,000 pixels \(row 1\)"),
        ({"b64": b64(b"images/a.png")}, r"column 'photo' must hold JPEG or PNG images \(row 1\)"),
        (None, r"column 'photo' must not be missing \(row 1\)"),
    ):
        with pytest.raises(InputError, match=reason):
            asked(b64(PNG), value)


def test_the_pixels_of_a_request_are_bounded():
    Bounds().check_pixels(200, 224 * 224 * 3)
    with pytest.raises(InputError, match="at most 445 rows are allowed") as refused:
        Bounds().check_pixels(500, 224 * 224 * 3)
    assert refused.value.status == 413


def test_large_images_of_few_bytes_are_refused_before_one_is_decoded(monkeypatch):
    monkeypatch.setattr("switchyard.components.values.conversion.fault", None)
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "PNG")
    assert len(file.getvalue()) < 5000

    with pytest.raises(InputError, match="column 'photo' has images of 125,000,000 pixels; at most 100,000,000") as refused:
        asked(*[b64(file.getvalue())] * 5)
    assert refused.value.status == 413


def test_a_jpeg_of_endless_scans_is_refused():
    with pytest.raises(InputError, match="column 'photo' must hold JPEG images of at most 100 scans"):
        asked(b64(JPEG + b"\xff\xda" * 101))


def test_a_sample_of_requests_counts_images_as_the_training_data_does_without_keeping_them(photos):
    path = csv(photos, ["images/a.png", "images/none.png", b64(OTHER), "images/a.png"])
    facts = {"label": "y", "images": {"photo": SHAPE}, "bytes_columns": ["photo"], "meanings": {"photo": "text"}}
    facts |= {"columns": {"photo": "string", "y": "integer"}, "csv": {}, "missing_values": []}
    summary = DatasetSummary("f", [], missing={}, rows={}, bad_rows=0, bad_row_samples=[], empty_columns=[], task="binary",
                             classes=[0, 1], class_counts={}, **facts)  # fmt: skip
    trained = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"photo": [PNG, None, OTHER, PNG]}))
    [wanted] = trained.datasets[0].features
    [found] = [f for f in sample_statistics([str(path)], summary, None).datasets[0].features if f.path.step[0] == "photo"]
    assert (found.type, found.string_stats.unique) == (wanted.type, wanted.string_stats.unique)
    assert found.string_stats.top_values == wanted.string_stats.top_values
    assert found.string_stats.common_stats.num_missing == wanted.string_stats.common_stats.num_missing == 1
    assert found.string_stats.avg_length < 40


def test_a_file_of_rows_keeps_the_good_images_and_lists_the_others(photos):
    path = csv(photos, ["images/a.png", "images/none.png", None, b64(PNG[:40]), "images/b.jpg"])
    [batch] = READERS["csv"](str(path), BadRows(0), None)
    found = fit_rows(with_images(batch, ["photo"], str(path)), [FEATURE])
    assert found.columns["photo"].ravel().tolist() == [PNG, JPEG]
    assert found.misfits == {
        1: "column 'photo' must hold JPEG or PNG images, received 'images/none.png'",
        2: "column 'photo' is missing",
        3: "column 'photo' must hold complete images, received '40 bytes'",
    }


def test_images_travel_with_the_data_to_a_cluster(photos):
    path = csv(photos, ["images/a.png", "images/b.jpg"])
    document = {"name": "x", "data": {"path": str(path), "columns": {"photo": {"type": "image", "size": [8, 6]}}}, "label": "y"}
    [(_, folder, files)] = local_inputs(load_config(None, document=document))
    assert sorted(str(f.relative_to(folder)) for f in files) == ["images/a.png", "images/b.jpg", "rows.csv"]
