"""A bundle is opened only when it is as it was registered, and names nothing to run but its own."""

import importlib
import os
import sys

import pandas as pd
import pytest
import tensorflow as tf

from switchyard.components.bundle.code import bundled_code
from switchyard.components.bundle.model import bundle_path, load_bundle
from switchyard.components.bundle.source import ModelRef, open_model
from switchyard.components.bundle.verification import check_version
from switchyard.components.errors import UserError
from switchyard.components.tracking import model_registry
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import write_manifest
from switchyard.components.tracking.references import name_and_selector
from switchyard.pipelines.api.model_argument import model_ref
from switchyard.pipelines.commands.deploy import deploy_tensorflow_serving
from switchyard.pipelines.commands.models import compare
from tests.bad_input import command_in_this_process
from tests.security.bundles import FEATURE, make_bundle

pytestmark = pytest.mark.core
ROWS = pd.DataFrame({FEATURE: [1.0, 2.0]})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "model"


def test_an_intact_bundle_predicts(folder):
    digest = make_bundle(folder)
    assert list(load_bundle(folder, digest).predict(ROWS)["prediction"]) == [3.0, 5.0]


def change(path):
    path.write_bytes(path.read_bytes() + b" ")


TAMPERED = {
    "a file that was changed": (
        lambda f: change(f / "artifacts/bundle/model/saved_model.pb"),
        "model/saved_model.pb' was changed",
    ),
    "bundle.json": (lambda f: change(f / "artifacts/bundle/bundle.json"), "bundle.json' was changed"),
    "MLmodel": (lambda f: change(f / "MLmodel"), "'MLmodel' was changed"),
    "a file that was added": (
        lambda f: (f / "artifacts/bundle/code").mkdir() or (f / "artifacts/bundle/code/x.py").touch(),
        "x.py' was added",
    ),
    "bytecode that was added": (
        lambda f: (f / "artifacts/__pycache__").mkdir() or (f / "artifacts/__pycache__/x.pyc").touch(),
        "x.pyc' was added",
    ),
    "a file that is gone": (lambda f: (f / "artifacts/bundle/model/features.json").unlink(), "features.json' is missing"),
    "a link": (lambda f: (f / "artifacts/bundle/link").symlink_to("/etc"), "link' is not a regular file"),
    "a manifest that is a link": (
        lambda f: (f / "manifest.json").unlink() or (f / "manifest.json").symlink_to("/dev/null"),
        "manifest.json' is not a regular file",
    ),
    "a manifest that is no list": (lambda f: (f / "manifest.json").write_text("[]"), "not a list of files and digests"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "not a Switchyard model bundle .* or was made by an older version"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_changed_bundle_is_refused_and_the_file_is_named(case, folder):
    make_bundle(folder)
    tamper, words = TAMPERED[case]
    tamper(folder)
    with pytest.raises(UserError, match=words):
        load_bundle(folder)


def test_a_rewritten_manifest_is_not_the_registered_one(folder):
    digest = make_bundle(folder)
    change(folder / "artifacts/bundle/bundle.json")
    write_manifest(folder)
    load_bundle(folder)
    with pytest.raises(UserError, match=f"manifest.json was changed: its digest is not the registered {digest}"):
        load_bundle(folder, digest)


def test_a_folder_changed_after_its_digest_was_checked_is_not_loaded(folder):
    digest = make_bundle(folder)
    with open_model(folder, digest=digest) as opened:
        change(folder / "artifacts/bundle/model/saved_model.pb")
        assert list(load_bundle(opened.folder, digest).predict(ROWS)["prediction"]) == [3.0, 5.0]
        assert (opened.name, opened.version, opened.digest) == (folder.name, folder.name, digest)
    assert not opened.folder.exists()


def test_a_bundle_of_an_older_format_is_refused_with_the_fix(folder):
    make_bundle(folder, format=1)
    with pytest.raises(UserError, match=r"format 1, this version reads 2.*train again"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "predictor",
    [
        "os:system", "subprocess:Popen", "pickle:loads", "builtins:exec", "/etc/x.py:X", "../x.py:X", "a/../../x.py:X",
        "switchyard.components.training.pytorch.predictor:PytorchPredictor",
        "components/x.py:X", "x.py", "x.py:X:Y", "x.py:X.y", "",
        "x y.py:X", "missing.py:X",
    ],
)  # fmt: skip
def test_a_predictor_outside_the_bundle_is_refused(predictor, folder, tmp_path):
    (tmp_path / "x.py").write_text("raise SystemExit('it was run')")
    digest = make_bundle(folder, predictor=predictor, code={"y.py": ""})
    with pytest.raises(UserError, match=r"bundle\.json names the predictor"):
        load_bundle(folder, digest)


OWN = """
import numpy as np
{imports}

class Mine:
    @classmethod
    def load_predictor(cls, export_dir):
        return lambda features: np.zeros((2, 1), dtype=np.float32) + {value}
"""


@pytest.mark.parametrize(
    ("predictor", "code"),
    [
        (
            "mine_own.py:Mine",
            {"mine_own.py": OWN.format(imports="import mine_helper", value="mine_helper.N"), "mine_helper.py": "N = 7"},
        ),
        (
            "tests/inner/mine.py:Mine",
            {
                "tests/__init__.py": "",
                "tests/inner/__init__.py": "",
                "tests/inner/mine.py": OWN.format(imports="from ..helper import N", value="N"),
                "tests/helper.py": "N = 7",
            },
        ),
    ],
    ids=["file", "package"],
)
def test_a_custom_trainer_is_part_of_the_bundle(predictor, code, folder):
    before = sys.modules.get("tests")
    digest = make_bundle(folder, predictor=predictor, code=code)
    assert list(load_bundle(folder, digest).predict(ROWS)["prediction"]) == [7.0, 7.0]
    assert sys.modules.get("tests") is before, "what is installed under the same name is left alone"
    load_bundle(folder, digest)  # and nothing was left beside the code
    for name in code:
        file = folder / "artifacts/bundle/code" / name
        content = file.read_bytes()
        change(file)
        with pytest.raises(UserError, match=f"code/{name}' was changed"):
            load_bundle(folder, digest)
        file.write_bytes(content)


def test_a_trainer_module_is_copied_with_its_imports_from_its_package(tmp_path, monkeypatch):
    for name, text in {
        "acme_a/__init__.py": "", "acme_a/deep/__init__.py": "",
        "acme_a/deep/mine.py": "from ..helper import N\nclass Mine: pass\n",
        "acme_a/helper.py": "from acme_a import more\nN = 1\n", "acme_a/more.py": "import json\n", "acme_a/other.py": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    trainer = importlib.import_module("acme_a.deep.mine").Mine
    predictor, files = bundled_code("acme_a.deep.mine:Mine", trainer)
    assert predictor == "acme_a/deep/mine.py:Mine"
    assert sorted(files) == [f"acme_a/{n}.py" for n in ("__init__", "deep/__init__", "deep/mine", "helper", "more")]
    assert bundled_code("pytorch", None) == ("pytorch", {})


@pytest.mark.parametrize("content", ["[]", "1", '{"format": 2}', '{"format": 2, "features": [1]}'])
def test_an_invalid_bundle_json_is_refused(content, folder):
    make_bundle(folder)
    (folder / "artifacts/bundle/bundle.json").write_text(content)
    write_manifest(folder)
    with pytest.raises(UserError, match=r"model: bundle\.json"):
        load_bundle(folder)


def feature(**changed):
    return {"features": [{"name": FEATURE, "dtype": "float32", "width": 1, "is_list": False, **changed}]}


@pytest.mark.parametrize(
    "changed",
    [
        feature(width="9"), feature(width=0), feature(width=-1), feature(dtype="object"), feature(dtype=["x"]), feature(name=1),
        feature(meaning="timestamp[%s]" * 10), feature(missing=[1]), feature(evil=1), {"features": []},
        {"features": feature()["features"] * 2}, {"features": 1}, {"task": "evil"}, {"classes": ["a"]}, {"predictor": 7},
        {"task": "binary", "classes": [1, 1]}, {"task": "multiclass", "classes": ["a", 1, None]}, {"label": None},
        {"transformed": 5}, {"user_code": "yes"},
    ],
    ids=str,
)  # fmt: skip
def test_a_bundle_json_with_impossible_values_is_refused(changed, folder):
    digest = make_bundle(folder, **changed)
    with pytest.raises(UserError, match=r"model: bundle\.json cannot be read \(.*it was changed, or a newer version made it"):
        load_bundle(folder, digest)


@pytest.mark.parametrize("file", ["bundle.json", "model/features.json"])
def test_json_that_is_nested_too_deeply_is_refused(file, folder):
    make_bundle(folder)
    (folder / "artifacts/bundle" / file).write_text("[" * 100_000)
    write_manifest(folder)
    with pytest.raises(UserError, match=r"model: .*train again|model: .*Train again"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["random.py", "json.py", "switchyard/__init__.py"])
def test_code_that_would_replace_a_module_is_refused(name, folder):
    digest = make_bundle(folder, predictor="mine_own.py:Mine", code={"mine_own.py": OWN.format(imports="", value=1), name: ""})
    with pytest.raises(UserError, match="would shadow a module"):
        load_bundle(folder, digest)


def reads(x):
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")) * 0, tf.float32)


def test_operations_of_user_code_need_the_registered_digest(folder):
    digest = make_bundle(folder, transform=reads, user_code=True)
    with pytest.raises(UserError, match="'ReadFile', which may reach files"):
        load_bundle(folder)
    assert len(load_bundle(folder, digest).predict(ROWS)) == 2


def test_operations_on_files_are_refused_in_models_without_user_code(folder):
    digest = make_bundle(folder, transform=reads)
    with pytest.raises(UserError, match="'ReadFile', which may reach files"):
        load_bundle(folder, digest)


@pytest.fixture
def registry(tmp_path):
    """A registry with versions 1 (with a digest) and 2 (as an older version registered it)."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = tracking.client(uri)
    run_id = client.create_run(client.create_experiment("x", artifact_location=str(tmp_path / "files"))).info.run_id
    for version in ("1", "2"):
        made = tmp_path / version
        make_bundle(made)
        described = {
            "name": "m", "bundle": str(made), "uri": version, "passed": True, "blessed": True, "compared_with": None, "why": "",
            "metrics": {}, "data": "", "tags": {"framework": "tensorflow"}, "description": "",
        }  # fmt: skip
        model_registry.register_model(client, run_id, described)
    client.delete_model_version_tag("m", "2", model_registry.DIGEST)
    return uri, tmp_path / "files"


def test_a_download_equals_the_registered_bundle(registry):
    uri, files = registry
    with open_model("m@1", uri) as opened:
        assert load_bundle(opened.folder, opened.digest).predict(ROWS) is not None
        assert (opened.name, opened.version, opened.digest) == ("m", "1", ModelRef(uri, "m", "1").digest("1"))
    assert not opened.folder.parent.exists()
    for changed in files.rglob("bundle.json"):
        change(changed)
        write_manifest(changed.parents[2])  # whoever can write there can write a manifest, too
    with pytest.raises(UserError, match=r"manifest\.json was changed"), open_model("m@1", uri):
        pass


@pytest.mark.parametrize("file", ["saved_model.pb", "bundle.json"])
def test_a_changed_registered_version_is_neither_deployed_nor_compared(file, registry, tmp_path):
    uri, files = registry
    for changed in files.rglob(file):
        change(changed)
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{FEATURE},y\n1.0,3.0\n2.0,5.0\n")
    with pytest.raises(UserError, match=f"{file}' was changed"):
        deploy_tensorflow_serving("m@1", uri, None, tmp_path / "out", trust=False, verify=None)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=f"{file}' was changed"):
        compare(uri, "m", ["1", "2"], rows, as_json=False)


@pytest.mark.parametrize("name", ["bundle.json", "manifest.json"])
@pytest.mark.parametrize("what", ["a device", "a pipe", "a link to a folder", "a link to a file"])
def test_a_registered_version_in_a_folder_is_copied_from_regular_files_only(what, name, registry, tmp_path):
    uri, files = registry
    for place in list(files.rglob(name)):
        place.replace(tmp_path / name)
        if what == "a pipe":
            os.mkfifo(place)
        else:
            links = {"a device": "/dev/zero", "a link to a folder": "..", "a link to a file": tmp_path / name}
            place.symlink_to(links[what])
    with pytest.raises(UserError, match=f"{name}' is not a regular file"), open_model("m@1", uri):
        pass
    found = [check for check in check_version(tracking.client(uri), uri, "m", "1") if check.what == "files"]
    assert [(check.outcome, f"{name}' is not a regular file" in check.found) for check in found] == [("changed", True)]


def test_a_version_without_a_digest_needs_trust(registry):
    uri, _ = registry
    with pytest.raises(UserError, match=r"version 2 was registered without a digest.*--trust"), open_model("m@2", uri):
        pass
    with open_model("m@2", uri, trust=True) as opened:
        assert opened.digest is None
        assert load_bundle(opened.folder).predict(ROWS) is not None


@pytest.mark.parametrize("text", ["m@1", "models:/m/1", "models:/m@champion"])
def test_mlflow_uris_of_versions_are_resolved_in_the_registry(text, registry):
    assert name_and_selector(text) is not None
    assert model_ref(text, registry[0], None, trust=False).version() == "1"
    with open_model(text, registry[0]) as opened:
        assert opened.version == "1"
    with pytest.raises(UserError, match="give the registry's address"), open_model(text):
        pass


def test_a_folder_and_a_uri_need_trust_or_a_digest(folder, tmp_path):
    digest = make_bundle(folder)
    for ref in (folder, "runs:/1/model", folder.as_uri(), "mlflow-artifacts:/model"):
        with (
            pytest.raises(UserError, match=r"not a registered version.*--trust"),
            open_model(ref, f"sqlite:///{tmp_path}/mlflow.db"),
        ):
            pass
    for vouched in ({"trust": True}, {"digest": digest}):
        with open_model(folder, **vouched) as opened:
            assert (opened.folder == folder) == ("trust" in vouched), "by its digest a copy is opened"
            assert (opened.version, opened.digest) == ("model", vouched.get("digest"))
        assert folder.is_dir()
    with pytest.raises(UserError, match="its digest is not the registered 0000"), open_model(folder, digest="0000"):
        pass


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_a_download_is_removed_even_if_it_is_refused(folder, temporary):
    digest = make_bundle(folder)
    with open_model(folder.as_uri(), digest=digest) as opened:
        assert opened.folder.is_relative_to(temporary)
        assert load_bundle(opened.folder, digest).predict(ROWS) is not None
    change(folder / "artifacts/bundle/bundle.json")
    with pytest.raises(UserError, match=r"bundle\.json' was changed"), open_model(folder.as_uri(), trust=True):
        pass
    with pytest.raises(UserError, match="cannot be downloaded"), open_model((folder / "gone").as_uri(), trust=True):
        pass
    assert list(temporary.iterdir()) == []
    assert folder.is_dir()


def test_a_training_stages_output_is_opened_like_the_model_in_it(tmp_path):
    make_bundle(bundle_path(tmp_path / "7"))
    with open_model(tmp_path / "7", trust=True) as opened:
        assert (opened.folder, opened.name, opened.version) == (bundle_path(tmp_path / "7"), "model", "7")


@pytest.mark.parametrize(
    "arguments",
    [["serve"], ["predict", "in.csv", "-o", "out.csv"], ["drift", "in.csv"], ["deploy", "--target", "tf-serving", "-o", "out"]],
)
def test_the_commands_refuse_a_folder_that_is_not_trusted(arguments, folder, tmp_path, monkeypatch):
    make_bundle(folder)
    (tmp_path / "in.csv").write_text("a\n1\n")
    monkeypatch.chdir(tmp_path)
    with command_in_this_process() as command:
        done = command(arguments[0], folder, *arguments[1:])
    assert done.exit_code == 2, done.stderr
    assert "--trust" in done.stderr
    assert "Traceback" not in done.stderr
