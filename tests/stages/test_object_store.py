"""Ingest reads an object store as it reads a folder."""

import gzip
import time
from functools import partial

import pyarrow as pa
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest import images, stores
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.sources import find_files, fingerprint
from switchyard.components.ingest.stores import remote_size
from tests.object_store import object_store
from tests.stages.test_images import encoded as encoded_image
from tests.stages.test_ingest import frame, ingest


@pytest.fixture
def objects(monkeypatch):
    found: dict[str, bytes] = {}
    with object_store(found) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield found


def contents(kind, data):
    if kind == "parquet":
        return data.to_parquet(index=False)
    if kind == "jsonl":
        return data.to_json(orient="records", lines=True).encode()
    text = data.to_csv(index=False).encode()
    return gzip.compress(text) if kind == "csv.gz" else text


def in_order(rows):
    """Returns the rows in an order of their own: neither the order of rows nor that of an example's features is fixed."""
    return sorted(repr(sorted(row.items(), key=lambda item: item[0])) for row in rows)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_rows_in_an_object_store_are_those_of_a_file(kind, objects, tmp_path):
    objects[f"bucket/rows/part.{kind}"] = content = contents(kind, frame())
    (tmp_path / f"part.{kind}").write_bytes(content)
    (tmp_path / "local").mkdir()
    (tmp_path / "remote").mkdir()
    summary, rows = ingest(tmp_path / "remote", path=[f"s3://bucket/rows/*.{kind}"])
    assert summary.files == [f"s3://bucket/rows/part.{kind}"]
    _, local = ingest(tmp_path / "local", path=[str(tmp_path / f"part.{kind}")])
    assert in_order(rows) == in_order(local)
    assert len(rows) == 200


def test_a_folder_of_an_object_store_is_read_without_its_markers_and_measured(objects):
    objects |= {"bucket/rows/a/1.csv": b"x,y\n1,0\n", "bucket/rows/a/_SUCCESS": b"", "bucket/rows/b.csv": b"x,y\n2,1\n"}
    assert find_files(["s3://bucket/rows"]) == ["s3://bucket/rows/a/1.csv", "s3://bucket/rows/b.csv"]
    assert remote_size(["s3://bucket/rows/*.csv"]) == len(objects["bucket/rows/b.csv"])


def test_other_content_in_an_object_store_has_another_fingerprint(objects):
    objects["bucket/b.csv"] = b"x,y\n1,0\n"
    before = fingerprint(["s3://bucket/b.csv"])
    objects["bucket/b.csv"] = b"x,y\n1,1\n"
    assert fingerprint(["s3://bucket/b.csv"]) != before


def test_an_object_store_that_does_not_answer_is_an_error_in_time(objects, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"data.path: no answer within 1 s from the store of s3://bucket/rows/\*.csv"):
        remote_size(["s3://bucket/rows/*.csv"], seconds=1)


def test_data_in_a_store_without_a_connection_is_an_error_in_time_with_what_to_set(objects, monkeypatch):
    """Beam would try for an hour."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(stores, "check_answers", partial(stores.check_answers, seconds=3))
    what = r"no answer within 3 s from the store of s3://away/\*.csv \(.*Could not connect to the endpoint URL.*AWS_ENDPOINT_URL"
    with pytest.raises(UserError, match=what):
        find_files(["s3://away/*.csv"])


def test_data_in_a_store_without_credentials_is_an_error_at_once(objects, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"no access to the store of s3://none/\*.csv \(.*locate credentials.*AWS_ACCESS_KEY_ID"):
        find_files(["s3://none/*.csv"])
    assert time.monotonic() - begin < stores.SECONDS / 2


def test_images_in_a_store_are_read_together_and_a_missing_one_is_named(objects, monkeypatch):
    encoded = [encoded_image(seed=seed) for seed in range(20)]
    objects |= {f"bucket/rows/{i}.png": content for i, content in enumerate(encoded)}
    open_file, running, most = images.open_file, [], []

    def slow(place):
        running.append(place)
        most.append(len(running))
        time.sleep(0.1)
        running.remove(place)
        return open_file(place)

    monkeypatch.setattr(images, "open_file", slow)
    paths = [f"{i}.png" for i in range(20)]
    bad = BadRows(9)
    batch = pa.RecordBatch.from_pydict({"photo": [*paths, "none.png"]})
    found = images.checked_images(batch, {"photo": (24, 32, 3)}, "s3://bucket/rows/d.csv", 0, bad, decode=True)
    assert found.column("photo").to_pylist() == encoded
    assert 4 < max(most) <= 16
    assert "row 20: column 'photo' must hold readable files" in bad.first(1)
    objects["bucket/rows/d.csv"] = "\n".join(["photo", *paths, "none.png"]).encode()
    named = images.image_files(["photo"], {"s3://bucket/rows/d.csv": "csv"}, CsvOptions())
    assert named == sorted(f"s3://bucket/rows/{path}" for path in paths)
    assert fingerprint(named) != fingerprint(named[1:])


def test_an_object_whose_checksum_may_not_be_read_is_an_error_that_names_it(objects):
    with pytest.raises(UserError, match=r"data.path: cannot look up the checksum of s3://bucket/b.csv: .*that it may be read"):
        fingerprint(["s3://bucket/b.csv"])
