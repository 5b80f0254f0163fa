"""The user's tokenizer: what it may return, what it is given, and that a folder of it computes what training read."""

import base64
import dataclasses
import io
import json
from pathlib import Path

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_transform.tf_metadata.schema_utils import schema_from_feature_spec

from switchyard.components.bundle.model import load_bundle
from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import StageError, UserError
from switchyard.components.failure import expected as expected_failure
from switchyard.components.infra_validation.check import check
from switchyard.components.infra_validation.server_process import server_process
from switchyard.components.ingest.texts import first_texts
from switchyard.components.prediction.files import predict_batch
from switchyard.components.tracking.manifest import FORMAT, write_manifest
from switchyard.components.training.columns import FILE, features_json
from switchyard.components.training.examples import transformed_examples
from switchyard.components.transform.columns import WriteColumns, feature_specs, trained_features
from switchyard.components.user_code.loading import UserCode
from switchyard.components.user_code.tokenizer import RefusedRowsError, Tokenizer, load_tokenizer, save_sample, tokenizer_outputs
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import input_spec
from switchyard.pipelines.preflight import check_environment, check_inputs

TEXT = FeatureSpec("review", "string", (1,))
TEXTS = np.array([[b"good film"], ["schön".encode()], [b""]], dtype=object)
WORDS = """
import zlib
import numpy as np

def build_tokenizer(spec):
    def tokenize(texts):
        words = [text.split()[:4] for text in texts["review"]]
        ids = [[zlib.crc32(w.encode()) % 99 + 1 for w in ws] + [0] * (4 - len(ws)) for ws in words]
        return {"ids": np.array(ids), "length": np.array([float(len(ws)) for ws in words])}

    tokenize.vocabulary_sizes = {"ids": 100}
    return tokenize
"""


def code(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "words.py").write_text(text)
    return UserCode(str(folder / "words.py"), "build_tokenizer")


def returning(expression):
    return f"import zlib\nimport numpy as np\ndef build_tokenizer(spec):\n    return lambda texts: {expression}\n"


@pytest.mark.core
def test_texts_become_arrays_of_fixed_types_and_shapes(tmp_path):
    tokenizer = Tokenizer(code(tmp_path, WORDS), [TEXT])
    assert tokenizer.outputs == (FeatureSpec("ids", "int64", (4,), 100), FeatureSpec("length", "float32", (1,)))
    found = tokenizer({"review": TEXTS, "price": np.ones((3, 1), np.float32)})
    assert sorted(found) == ["ids", "length", "price"]
    assert found["ids"].dtype == np.int64
    assert found["ids"].shape == (3, 4)
    np.testing.assert_array_equal(found["length"], np.array([[2], [1], [0]], np.float32))


def test_a_column_of_bytes_arrives_as_bytes_and_a_text_as_str(tmp_path):
    tokenizer = code(tmp_path, returning("{n: np.array([type(v) is str for v in a]) for n, a in texts.items()}"))
    features = [dataclasses.replace(TEXT, name="photo", dtype="bytes"), TEXT]
    rows = {"photo": np.array([[b"\xff"]], object), "review": np.array([[b"a"]], object)}
    found = Tokenizer(tokenizer, features)(rows)
    assert (found["photo"].item(), found["review"].item()) == (0, 1)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("[1]", "must return a dict of name -> array, received list"),
        ("{'ids': ['a'] * len(texts['review'])}", "'ids' must be an array of numbers with rows of one length"),
        ("{'ids': [1, 2, 3, 4]}", r"'ids' must have a row for each of 1 texts, received shape \(4,\)"),
        ("{'ids': [[ord(c) for c in t] for t in texts['review']]}", "for an empty text; pad all rows to one length"),
        ("{'ids': 1 / 0}", "words.py failed: words.py, line 4: ZeroDivisionError"),
    ],
)
def test_what_is_no_array_of_one_shape_is_refused_before_any_data_is_read(expression, why, tmp_path):
    with pytest.raises(UserError, match=why):
        Tokenizer(code(tmp_path, returning(expression)), [TEXT])


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            '"ids": 100',
            '"id": 100',
            "names 'id', which the function does not return. Did you mean 'ids'.*: ids, length",
        ),
        ("+ [0] * (4 - len(ws))", "", "'ids' is empty, of shape .* for an empty text; pad all rows to one length"),
        ('"ids": 100', '"length": 100', "vocabulary_sizes must map names of whole-number arrays"),
    ],
    ids=["unknown name", "plain lists without padding", "numbers that are not whole"],
)
def test_a_wrong_vocabulary_size_and_unpadded_lists_have_errors_of_their_own(old, new, why, tmp_path):
    with pytest.raises(UserError, match=why):
        Tokenizer(code(tmp_path, WORDS.replace(old, new)), [TEXT])


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("{'ids': np.zeros((len(texts['review']), 1 + max(map(len, texts['review']))))}", "pad and cut all rows to one length"),
        ("{'ids' if texts['review'][0] else 'none': np.zeros(len(texts['review']))}", r"returned \['ids'\], and \['none'\]"),
    ],
)
def test_arrays_that_differ_between_batches_are_refused(expression, why, tmp_path):
    with pytest.raises(UserError, match=why):
        Tokenizer(code(tmp_path, returning(expression)), [TEXT])({"review": TEXTS})


def test_an_index_beyond_the_vocabulary_is_refused(tmp_path):
    tokenizer = Tokenizer(code(tmp_path, WORDS.replace("% 99 + 1", "% 99 + 9000")), [TEXT])
    with pytest.raises(UserError, match=r"'ids' has values from 0 to 9.*, and its vocabulary 100"):
        tokenizer({"review": TEXTS})


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(UserError, match="the text 'review' is not UTF-8"):
        Tokenizer(code(tmp_path, WORDS), [TEXT])({"review": np.array([[b"\xff"]], object)})


@pytest.fixture
def saved(tmp_path):
    """A tokenizer's folder with a sample, as the transform stage writes it."""
    tokenizer = Tokenizer(code(tmp_path / "project", WORDS), [TEXT])
    folder = tmp_path / "saved"
    tokenizer.save(str(folder))
    features = {"review": TEXTS}
    save_sample(str(folder), "train", tokenizer.sample(features, tokenizer(features)))
    return folder


@pytest.mark.core
def test_a_folder_computes_what_training_read(saved):
    tokenizer = load_tokenizer(saved)
    assert [f.name for f in tokenizer.outputs] == ["ids", "length"]
    assert tokenizer({"review": TEXTS})["ids"].shape == (3, 4)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("+ 1 for", "+ 0 for", "gives another 'ids' here than training read, of the train split"),
        ("4", "5", r"makes ids \(int64 \(5,\), vocabulary 100\), .* in training: it depends on more than the text"),
    ],
)
def test_code_that_changed_after_the_training_is_refused(old, new, why, saved):
    (saved / "code" / "words.py").write_text(WORDS.replace(old, new))
    with pytest.raises(UserError, match=why):
        load_tokenizer(saved)


@pytest.mark.parametrize("file", ["../words.py", "words.txt", 3])
def test_a_changed_description_names_no_other_file(file, saved):
    path = saved / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "file": file}))
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        load_tokenizer(saved)


def test_a_module_in_the_folder_that_shadows_pythons_is_refused(saved):
    Path(saved / "code" / "json.py").write_text("")
    with pytest.raises(UserError, match="json would shadow a module of Python"):
        load_tokenizer(saved)


def transformed(folder, tokenizer, reviews):
    """Writes rows as the transform stage does and returns the artifact's folder."""
    spec = {name: tf.io.FixedLenFeature([1], dtype) for name, dtype in {"review": tf.string, "price": tf.float32}.items()}
    schema = schema_from_feature_spec({**spec, "y": tf.io.FixedLenFeature([], tf.int64)})
    rows = {
        "price": [[float(i)] for i in range(len(reviews))],
        "review": [[r] for r in reviews],
        "y": [[i] for i in range(len(reviews))],
    }
    kinds = {"price": pa.float32(), "review": pa.large_binary(), "y": pa.int64()}
    batch = pa.RecordBatch.from_pydict({n: pa.array(v, pa.large_list(kinds[n])) for n, v in rows.items()})
    batches = [batch.slice(start, 2) for start in range(0, len(reviews), 2)]
    with beam.Pipeline() as pipeline:
        given = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: [(each, {}) for each in batches])
        _ = given | WriteColumns(schema, "y", str(folder / "Split-train" / "examples"), tokenizer)
    features = feature_specs(schema, ["y"], tokenized=True)
    trained = trained_features(features, tokenizer_outputs(str(folder / "tokenizer")), "y")
    (folder / FILE).write_text(features_json(trained))
    return folder


@pytest.mark.core
def test_trainers_read_the_arrays_beside_the_other_features(tmp_path):
    reviews = [f"word{i} film".encode() for i in range(20)]
    folder = transformed(tmp_path / "artifact", code(tmp_path / "project", WORDS), reviews)
    [(features, labels)] = transformed_examples(folder, "train").batches(100)
    order = np.argsort(labels)
    assert sorted(features) == ["ids", "length", "price"]
    expected = load_tokenizer(folder / "tokenizer")({"review": np.array([[r] for r in reviews], dtype=object)})
    np.testing.assert_array_equal(features["ids"][order], expected["ids"])
    np.testing.assert_array_equal(features["length"][order], expected["length"])
    np.testing.assert_array_equal(features["price"][order][:, 0], np.arange(20))
    assert [file.name for file in (folder / "tokenizer" / "samples").iterdir()] == ["train.arrow"]


def test_a_text_that_the_tokenizer_fails_on_is_an_error_with_its_line(tmp_path):
    fails = returning("{'ids': [int(t or 0) for t in texts['review']]}")
    with pytest.raises(Exception, match="ValueError") as failed:
        transformed(tmp_path / "artifact", code(tmp_path / "project", fails), [b"1", b"2", b"three"])
    failure = expected_failure(failed.value)
    assert failure is not None
    assert failure.message.startswith("tokenizer: words.py failed: words.py, line 4: ValueError: invalid literal for int()")


NUMBERS = returning("{'ids': [int(t or 0) for t in texts['review']]}")
ROWS = pd.DataFrame({"review": ["1", "two", "3", "four", "5"]})


@pytest.fixture
def of_numbers(tmp_path):
    """A bundle whose tokenizer fails for a text that is no number; the score is the number."""
    words = code(tmp_path / "project", NUMBERS)
    digest = bundle_of(tmp_path / "model", words, TEXT, FeatureSpec("ids", "int64", (1,)), lambda ids: ids, samples=False)
    return tmp_path / "model", digest


def test_rows_that_a_tokenizer_fails_for_are_named_and_the_others_scored(of_numbers):
    model = load_bundle(*of_numbers)
    with pytest.raises(RefusedRowsError, match="ValueError: invalid literal for int") as refused:
        model.scores(ROWS)
    assert refused.value.rows == (1, 3)
    table, bad = predict_batch(model, model.info.features, pa.RecordBatch.from_pandas(ROWS))
    assert sorted(bad) == [1, 3]
    assert "words.py, line 4: ValueError" in bad[1]
    assert table["prediction"].to_pylist() == [1, None, 3, None, 5]


def test_a_tokenizer_that_fails_for_all_rows_together_only_is_an_error(tmp_path):
    words = code(tmp_path / "project", returning("{'ids': [1 // (len(texts['review']) < 3) for t in texts['review']]}"))
    with pytest.raises(UserError, match="ZeroDivisionError") as failed:
        Tokenizer(words, [TEXT]).of_good_rows({"review": TEXTS})
    assert not isinstance(failed.value, RefusedRowsError)


def test_a_server_answers_400_to_rows_that_the_tokenizer_fails_for(of_numbers, tmp_path):
    with server_process(str(of_numbers[0]), of_numbers[1], tmp_path / "log", 300) as server:
        with pytest.raises(StageError, match=r"400.*the model's tokenizer fails for row 1 and 1 more; see the server's log"):
            server.invoke(ROWS.to_dict("records"))
        assert [row["prediction"] for row in server.invoke([{"review": "7"}])] == [7]
    assert "ValueError: invalid literal for int() with base 10: 'two'" in (tmp_path / "log").read_text()


MISTAKES = {
    "{'ids': [1, 2, 3]}": r"must have a row for each of 1 texts",
    "{'ids': [[ord(c) for c in t or 'a'] for t in texts['review']]}": r"'ids' .* rows of one length",
    "{'ids': [int(t or 0) for t in texts['review']]}": "ValueError: invalid literal",
}


@pytest.mark.parametrize(("expression", "why"), MISTAKES.items(), ids=["rows", "lengths", "values"])
def test_a_mistake_is_found_by_the_check_before_the_run(expression, why, tmp_path):
    pd.DataFrame({"review": ["a", "bcd"] * 20, "n": range(40), "y": [0, 1] * 20}).to_csv(tmp_path / "d.csv", index=False)
    code(tmp_path, returning(expression))
    document = {"name": "x", "data": {"path": str(tmp_path / "d.csv")}, "label": "y", "tokenizer": str(tmp_path / "words.py")}
    with pytest.raises(UserError, match=why):
        check_environment((load_config(None, document=document), tmp_path / "store"))


def test_the_first_rows_may_be_in_the_second_file(tmp_path):
    (tmp_path / "a.csv").write_text("review,y\n")
    pd.DataFrame({"review": ["a", "bcd"] * 20, "y": [0, 1] * 20}).to_csv(tmp_path / "b.csv", index=False)
    document = {"name": "x", "data": {"path": str(tmp_path / "*.csv")}, "label": "y"}
    [(feature, values)] = first_texts(input_spec(load_config(None, document=document)), [])
    assert (feature.name, values.shape, values[1, 0]) == ("review", (40, 1), b"bcd")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (["revew"], "tokenizer.columns: 'revew' is no usable column of text. Did you mean 'review'"),
        (["n"], "tokenizer.columns: 'n' is no usable column of text. Columns of text: review"),
    ],
)
def test_a_column_that_is_no_text_is_found_before_the_run(columns, why, tmp_path):
    pd.DataFrame({"review": ["a", "bcd"] * 20, "n": range(40), "y": [0, 1] * 20}).to_csv(tmp_path / "d.csv", index=False)
    code(tmp_path, WORDS)
    tokenizer = {"code": str(tmp_path / "words.py"), "columns": columns}
    document = {"name": "x", "data": {"path": str(tmp_path / "d.csv")}, "label": "y", "tokenizer": tokenizer}
    with pytest.raises(UserError) as refused:
        check_inputs(load_config(None, document=document), tmp_path / "store")
    assert why in str(refused.value)


def test_an_array_named_like_a_feature_is_refused(tmp_path):
    taken = code(tmp_path / "project", returning("{'price': np.zeros(len(texts['review']))}"))
    with pytest.raises(UserError, match="returns an array named like the feature or label 'price'"):
        transformed(tmp_path / "artifact", taken, [b"a"])


def test_two_tokenizers_with_files_of_one_name_stay_apart(tmp_path):
    """A candidate and a champion in one process."""
    one = Tokenizer(code(tmp_path / "one", WORDS), [TEXT])
    two = Tokenizer(code(tmp_path / "two", WORDS.replace("+ 1 for", "+ 0 for")), [TEXT])
    rows = {"review": TEXTS}
    np.testing.assert_array_equal(one(rows)["ids"][0, :2], two(rows)["ids"][0, :2] + 1)


def bundle_of(folder, tokenizer, text, output, score, *, samples=True):
    """Returns the digest of a bundle whose model computes `score` of the tokenizer's only output."""
    bundle = folder / "artifacts" / "bundle"

    class Preprocess(tf.Module):
        @tf.function(input_signature=[{"f0": tf.TensorSpec([None, 1], tf.string)}])
        def transform(self, tensors):
            return {"t0": tensors["f0"]}

    class Model(tf.Module):
        @tf.function(input_signature=[{"f0": tf.TensorSpec([None, *output.shape], output.dtype)}])
        def serve(self, features):
            return score(tf.cast(features["f0"], tf.float32))

    tf.saved_model.save(Preprocess(), str(bundle / "preprocess"))
    tf.saved_model.save(Model(), str(bundle / "model"))
    (bundle / "model" / "features.json").write_text(json.dumps([output.name]))
    tokenizer = Tokenizer(tokenizer, [text])
    tokenizer.save(str(bundle / "tokenizer"))
    rows = {text.name: np.array([[b"good film"], [b""]], dtype=object)}
    if text.dtype == "string" and samples:
        save_sample(str(bundle / "tokenizer"), "train", tokenizer.sample(rows, tokenizer(rows)))
    feature = {"name": text.name, "dtype": "string", "width": 1, "is_bytes": text.dtype == "bytes", "meaning": "text"}
    document = {
        "format": FORMAT, "framework": "tensorflow", "predictor": "tensorflow", "task": "regression", "label": "y", "classes": [],
        "features": [feature], "transformed": [text.name], "user_code": True, "tokenizer": True,
    }  # fmt: skip
    (bundle / "bundle.json").write_text(json.dumps(document))
    (folder / "MLmodel").write_text("flavors: {}\n")
    return write_manifest(folder)


@pytest.mark.parametrize("index", ["zlib.crc32(w.encode())", "hash(w)"])
def test_infra_validation_refuses_a_tokenizer_that_differs_in_the_server(index, tmp_path, monkeypatch):
    """Python's hash() of a text is another one in every process; evaluation runs in a fork of the process that trained."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    words = code(tmp_path / "project", returning(f"{{'ids': [[{index} % 99 for w in [t]] for t in texts['review']]}}"))
    output = FeatureSpec("ids", "int64", (1,))
    digest = bundle_of(tmp_path / "model", words, TEXT, output, lambda ids: tf.reduce_sum(ids, axis=1, keepdims=True))
    row = tf.train.Example(features=tf.train.Features(feature={"review": tf.train.Feature(bytes_list={"value": [b"a b"]})}))
    found = check(str(tmp_path / "model"), digest, [row.SerializeToString()], tmp_path / "log", 300)
    if index == "hash(w)":
        assert "gives another 'ids' here than training read" in found.reason
        assert not found.servable
    else:
        assert (found.reason, found.rows, found.difference) == ("", 1, 0)


PIXELS = """
import io
import numpy as np
from PIL import Image

def build_tokenizer(spec):
    [photo] = spec.features

    def decode(texts):
        images = [Image.open(io.BytesIO(data)).convert("L") if data else Image.new("L", (8, 8)) for data in texts[photo.name]]
        return {"pixels": np.stack([np.asarray(image.resize((8, 8))) for image in images]) / 255.0}

    return decode
"""


@pytest.mark.core
def test_a_bundle_reads_images_from_bytes_and_base64(tmp_path):
    """As raw rows of a file, and as a request's JSON."""
    photo, pixels = FeatureSpec("photo", "bytes", (1,)), FeatureSpec("pixels", "float32", (8, 8))
    tokenizer = code(tmp_path / "project", PIXELS)
    digest = bundle_of(tmp_path / "model", tokenizer, photo, pixels, lambda x: tf.reduce_mean(x, axis=[1, 2])[:, tf.newaxis])
    model = load_bundle(tmp_path / "model", digest)
    photos = []
    for grey in (51, 255):
        file = io.BytesIO()
        Image.new("L", (20, 10), grey).save(file, "PNG")
        photos.append(file.getvalue())
    expected = [[0.2], [1.0]]
    np.testing.assert_allclose(model.scores(pd.DataFrame({"photo": photos})), expected, atol=1e-6)
    requested = [{"b64": base64.b64encode(photo).decode()} for photo in photos]
    np.testing.assert_allclose(model.scores(pd.DataFrame({"photo": requested})), expected, atol=1e-6)
