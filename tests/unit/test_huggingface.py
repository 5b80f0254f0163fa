"""Model folders of Hugging Face's: what is refused before anything is loaded, and what a snapshot holds. Imports no framework."""

import json
import os
import shutil
import sys

import pytest
from safetensors.numpy import load_file, save_file

from switchyard.components.errors import UserError
from switchyard.components.training.huggingface import CODE
from switchyard.components.user_code import huggingface
from switchyard.components.user_code.huggingface import model_snapshot, tokenizer_snapshot
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import tokenizer_code, trainer_settings
from switchyard.pipelines.preflight import check_inputs
from tests.command import EXAMPLES

pytestmark = pytest.mark.core
HEAD = "classifier.weight"
TRANSFORMER = EXAMPLES / "reviews" / "transformer"


@pytest.fixture
def folder(tmp_path):
    """A model folder."""
    return shutil.copytree(TRANSFORMER, tmp_path / "model")


def changed(file, **values):
    """Replaces values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def snapshots(folder, store, **tokenizer):
    tokenizer = {"columns": (), "max_length": None} | tokenizer
    return (
        model_snapshot(CODE, str(folder), {"lora": None}, store, key="trainer.model.huggingface"),
        tokenizer_snapshot(str(folder), **tokenizer, store=store, key="trainer.model.huggingface"),
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda f: (f / "pytorch_model.bin").write_bytes(b""),
            r"holds pickles.*pytorch_model\.bin\. Save the weights as safetensors",
        ),
        (lambda f: (f / "optimizer.pt").write_bytes(b""), r"holds pickles.*optimizer\.pt"),
        (lambda f: ((f / "old").mkdir(), (f / "old" / "head.pkl").write_bytes(b"")), r"holds pickles.*old/head\.pkl"),
        (lambda f: (f / "modeling_mine.py").write_text(""), r"holds code, which is not run: modeling_mine\.py"),
        (lambda f: changed(f / "config.json", auto_map={"AutoModel": "hub--m.M"}), r"config\.json has an auto_map.*remote code"),
        (lambda f: changed(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]}), "has an auto_map"),
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer: no tokenizer\.json\. Save it there"),
        (lambda f: (f / "model.safetensors").unlink(), r"has no weights as safetensors: no model\.safetensors"),
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "names no model_type"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "is a LoRA adapter; merge it into its model first"),
        (lambda f: changed(f / "config.json", quantization_config={}), "weights are quantized"),
        (lambda f: changed(f / "tokenizer_config.json", pad_token=None), "has no pad_token"),
        (shutil.rmtree, "no such folder. Nothing is downloaded"),
    ],
)
def test_a_folder_that_could_run_code_or_lacks_a_part_is_refused_with_the_reason(spoil, why, folder, tmp_path):
    spoil(folder)
    with pytest.raises(UserError, match=rf"^trainer\.model\.huggingface: {folder}: .*{why}"):
        snapshots(folder, tmp_path / "store")
    assert not (tmp_path / "store").exists() or "pad_token" in why


def rewritten(file, change):
    """Saves a safetensors file again with changed weights."""
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def without(*parts):
    def change(weights):
        for name in [n for n in weights if any(part in n for part in parts)]:
            del weights[name]

    return change


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda f: os.truncate(f, f.stat().st_size - 1), r"model\.safetensors is truncated or damaged: .+"),
        (lambda f: os.truncate(f, 100), r"model\.safetensors is truncated or damaged: .+"),
        (lambda f: f.write_bytes(b""), r"model\.safetensors is truncated or damaged: .+"),
        (lambda f: f.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"), "damaged"),
        (lambda f: rewritten(f, dict.clear), "hold no weight"),
        (lambda f: rewritten(f, without(".layer.0.")), "the weights lack layer 0 of"),
        (lambda f: changed(f.parent / "config.json", num_hidden_layers=7), "the weights lack layer [0-9] of 7"),
        (
            lambda f: changed(f.parent / "config.json", vocab_size=5),
            r"word_embeddings\.weight has the shape .* a vocab_size of 5",
        ),
        (lambda f: changed(f.parent / "config.json", hidden_size=64), r"has the shape \(78, 32\), and .* a hidden_size of 64"),
    ],
)
def test_damaged_weights_are_refused_before_the_run_by_their_headers(spoil, why, folder, tmp_path):
    spoil(folder / "model.safetensors")
    before = set(sys.modules)
    with pytest.raises(UserError, match=rf"^trainer\.model\.huggingface: {folder}: .*{why}.*\. Copy the folder again"):
        snapshots(folder, tmp_path / "store")
    assert not {"torch", "transformers"} & (set(sys.modules) - before)


def test_weights_that_an_index_misplaces_are_refused(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    places = {HEAD: "model-00001-of-00001.safetensors", "no.such.weight": "model-00001-of-00001.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match=r"lacks 1 weights that the index says are in it, such as no\.such\.weight"):
        snapshots(folder, tmp_path / "store")


def test_attention_of_a_hub_is_refused(folder, tmp_path):
    changed(folder / "config.json", attn_implementation="kernels-community/flash-attn2")
    with pytest.raises(UserError, match=r"has an attn_implementation of a hub, .* which is code and is not run"):
        snapshots(folder, tmp_path / "store")


@pytest.mark.parametrize("name", ["../model.safetensors", "other.safetensors", "weights.txt"])
def test_an_index_of_weights_names_files_of_the_folder(name, folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {HEAD: "model-00001-of-00001.safetensors"}}))
    model, _ = snapshots(folder, tmp_path / "store")
    assert (tmp_path / "store" / model.path).with_name("model-00001-of-00001.safetensors").exists()
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match="which is not in the folder; save the model again"):
        snapshots(folder, tmp_path / "store")


def test_a_name_of_a_hub_is_no_folder(tmp_path):
    config = load(tmp_path, huggingface="bert-base-uncased")
    with pytest.raises(UserError, match=r"bert-base-uncased: no such folder\. Nothing is downloaded"):
        check_inputs(config, tmp_path / "store")


def test_a_snapshot_holds_what_is_loaded_and_nothing_else(folder, tmp_path):
    (folder / "README.md").write_text("a card")
    model, tokenizer = snapshots(folder, tmp_path / "store", max_length=16)
    of_model, of_tokenizer = (sorted(p.name for p in (tmp_path / c.path).parent.iterdir()) for c in (model, tokenizer))
    assert of_model == ["config.json", "huggingface_model.py", "model.safetensors", "settings.json"]
    assert of_tokenizer == ["huggingface_tokenizer.py", "settings.json", "tokenizer.json"]
    assert (model.function, tokenizer.function) == ("build_model", "build_tokenizer")


def test_other_weights_train_again_and_do_not_tokenize_again(folder, tmp_path):
    model, tokenizer = snapshots(folder, tmp_path / "store")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    assert snapshots(folder, tmp_path / "store")[1] == tokenizer
    assert snapshots(folder, tmp_path / "store")[0] != model
    assert snapshots(folder, tmp_path / "store", max_length=16)[1] != tokenizer


@pytest.mark.parametrize(
    ("limits", "wanted", "expected"),
    [
        ((40, 40), None, 40),
        ((10**30, 4096), None, 512),
        ((None, None), None, 512),
        ((None, None), 2000, 2000),
        ((512, 514), None, 512),
    ],
)
def test_texts_are_as_long_as_the_model_reads(limits, wanted, expected, folder, tmp_path):
    changed(folder / "tokenizer_config.json", model_max_length=limits[0])
    changed(folder / "config.json", max_position_embeddings=limits[1])
    _, tokenizer = snapshots(folder, tmp_path / "store", max_length=wanted)
    settings = json.loads((tmp_path / tokenizer.path).with_name("settings.json").read_text())
    assert settings["max_length"] == expected


def test_texts_longer_than_the_model_reads_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.max_length: 41 tokens, and the model in .* reads 40; use fewer"):
        snapshots(folder, tmp_path / "store", max_length=41)


def load(tmp_path, framework="pytorch", tokenizer=None, **model):
    (tmp_path / "d.csv").write_text("text,age,y\n" + "".join(f"word {i},{i},{i % 2}\n" for i in range(40)))
    trainer = {"framework": framework, "model": model or {"huggingface": str(TRANSFORMER)}}
    document = {"name": "x", "data": {"path": str(tmp_path / "d.csv")}, "label": "y", "trainer": trainer}
    return load_config(None, document=document | ({"tokenizer": tokenizer} if tokenizer else {}), base=tmp_path)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"huggingface": "m", "lora": {"rnk": 8}}, "trainer.model.lora.rnk: unknown key. Did you mean 'rank'?"),
        ({"huggingface": "m", "lora": {"rank": 0}}, "trainer.model.lora.rank: must be greater than or equal to 1, received 0"),
        ({"huggingface": "m", "task": "fill-mask"}, "trainer.model.task: must be 'text-classification', received 'fill-mask'"),
        ({"pytorch": {"huggingface": "m", "laura": {}}}, "trainer.model.pytorch.laura: unknown key. Did you mean 'lora'?"),
        ({"pytorch": {"huggingfase": "m"}}, "trainer.model.pytorch: must be FILE.py or {huggingface: FOLDER}, received"),
        (
            {"pytorch": {"huggingface": "m"}, "tensorflow": {"huggingface": "m"}},
            "is trained by the framework pytorch, received 'tens",
        ),
    ],
)
def test_errors_in_the_second_form_of_the_model_name_its_keys(given, why, tmp_path):
    with pytest.raises(UserError) as refused:
        load(tmp_path, **given)
    assert why in str(refused.value)


@pytest.mark.parametrize("framework", ["tensorflow", "lightgbm", "mine:Trainer"])
def test_other_frameworks_train_no_model_folder(framework, tmp_path):
    with pytest.raises(UserError, match=r"^the command line: trainer\.model: "):
        load(tmp_path, framework)


def test_the_models_tokenizer_is_the_default_and_the_only_one(tmp_path):
    config = load(tmp_path, tokenizer={"columns": ["text"], "max_length": 16})
    assert (config.tokenizer.huggingface, config.tokenizer.max_length) == (str(TRANSFORMER), 16)
    for other, why in ({"code": "t.py"}, "tokenizer.code: "), ({"huggingface": "other"}, "tokenizer.huggingface: "):
        with pytest.raises(UserError, match=f"{why}.*remove it"):
            load(tmp_path, tokenizer=other)


def test_the_models_tokenizer_is_also_that_of_a_keras_file_beside_it(tmp_path):
    forms = {"tensorflow": "keras_model.py", "pytorch": {"huggingface": str(TRANSFORMER), "lora": {"rank": 4}}}
    config = load(tmp_path, "tensorflow", **forms)
    assert tokenizer_code(config, tmp_path / "store").path.endswith("/huggingface_tokenizer.py")
    both = load(tmp_path, ["tensorflow", "pytorch"], **forms)
    assert both.trainer.model_file_for("tensorflow").endswith("/keras_model.py")
    settings = trainer_settings(both, tmp_path / "store", "pytorch")
    assert json.loads((tmp_path / settings.code.path).with_name("settings.json").read_text()) == {
        "lora": {"rank": 4, "alpha": 8.0, "dropout": 0.0, "modules": []}
    }


def test_a_config_with_a_model_folder_survives_as_yaml(tmp_path):
    config = load(tmp_path, huggingface="model", lora={"rank": 4})
    assert config.trainer.model.huggingface == str(tmp_path / "model")
    (tmp_path / "p.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "p.yaml") == config


def test_columns_that_the_model_does_not_read_are_excluded_by_the_user(tmp_path):
    with pytest.raises(
        UserError, match=r"a Hugging Face model reads texts alone \(text\), and .* also age; list .* in data\.exclude"
    ):
        check_inputs(load(tmp_path), tmp_path / "store")
    config = load(tmp_path)
    config = config.model_copy(update={"data": config.data.model_copy(update={"exclude": ("age",)})})
    assert check_inputs(config, tmp_path / "store").task == "binary"


def test_model_parameters_that_no_model_reads_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"trainer\.model_parameters: a Hugging Face model reads none"):
        load_config(
            None,
            document={
                "name": "x",
                "data": {"path": "d.csv"},
                "label": "y",
                "trainer": {"framework": "pytorch", "model": {"huggingface": "m"}, "model_parameters": {"width": 3}},
            },
        )


def test_without_the_libraries_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(huggingface.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"transformers and tokenizers and peft not installed; .*'switchyard\[huggingface\]'"):
        huggingface.check_installed()
