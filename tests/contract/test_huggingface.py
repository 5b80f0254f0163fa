"""Hugging Face's model folders in the PyTorch trainer: what is trained, exported and refused; small models made from configs."""

import json
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.progress import set_sink
from switchyard.components.training.huggingface import CODE, HuggingFaceModel
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.pytorch.checkpoints import CHECKPOINT, load
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.user_code.huggingface import model_snapshot, tokenizer_snapshot
from switchyard.components.user_code.tokenizer import Tokenizer
from tests.command import EXAMPLES
from tests.training_inputs import in_memory
from tests.training_requests import no_report, request

REVIEWS = EXAMPLES / "reviews"
TRANSFORMER = REVIEWS / "transformer"
TEXTS = pd.read_csv(REVIEWS / "data.csv", nrows=192)


def objects(texts):
    """Returns texts as the transform stage passes them."""
    return np.array([[text.encode()] for text in texts], dtype=object)


@pytest.fixture
def snapshot(tmp_path):
    """Returns a function: model folder, LoRA's settings -> build_model of its snapshot."""

    def take(folder=TRANSFORMER, lora=None):
        settings = HuggingFaceModel(huggingface=str(folder), lora=lora).settings()
        return model_snapshot(CODE, str(folder), settings, tmp_path / "store", key="trainer.model.huggingface").load()

    return take


@pytest.fixture
def tokenize(tmp_path):
    """Returns a function: model folder, columns -> its tokenizer."""

    def make(folder=TRANSFORMER, columns=("review",), max_length=None):
        code = tokenizer_snapshot(str(folder), columns, max_length, tmp_path / "store", key="tokenizer.huggingface")
        return Tokenizer(code, [FeatureSpec(name, "string", (1,)) for name in sorted(columns)])

    return make


@pytest.fixture
def reviews(tokenize, tmp_path):
    """Returns a function: build_model, hyperparameters -> a request to train on reviews."""
    tokenizer = tokenize()
    arrays = tokenizer({"review": objects(TEXTS["review"])})
    labels = (TEXTS["positive"] == "yes").to_numpy().astype(np.int64)
    splits = [
        in_memory({n: a[rows] for n, a in arrays.items()}, labels[rows], tokenizer.outputs)
        for rows in (slice(128), slice(128, 192))
    ]

    def make(build_model, outputs=1, **hyper):
        spec = ModelSpec(tokenizer.outputs, "binary", outputs)
        return request(splits, tmp_path, "binary", build_model, spec=spec, **{"learning_rate": 0.01, "epochs": 2, **hyper})

    return make


@pytest.mark.core
def test_an_adapter_is_merged_into_what_is_exported_and_changes_no_score(snapshot, reviews):
    build = snapshot(lora={"rank": 4})
    given = reviews(build)
    result = PytorchTrainer().train(given, no_report)
    trained = build(given.spec)
    load(trained, TrainingLedger.open(given.checkpoint_dir, given.hyperparameters).best(CHECKPOINT), "model.")
    features, _ = next(iter(given.eval.batches(64)))
    with torch.inference_mode():
        expected = torch.sigmoid(trained.eval()({n: torch.from_numpy(a.copy()) for n, a in features.items()})).numpy()
    found = PytorchTrainer.load_predictor(given.export_dir)(features)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    folder, exported = load_file(TRANSFORMER / "model.safetensors"), load_file(given.export_dir / "weights.safetensors")
    exported = {name.removeprefix("network."): weight for name, weight in exported.items()}
    assert set(exported) == set(folder), "the names of the model without an adapter"
    changed = {name for name, weight in folder.items() if not torch.equal(weight, exported[name])}
    layers = {f"bert.encoder.layer.{i}.attention.self.{part}.weight" for i in range(2) for part in ("query", "value")}
    assert changed == layers | {"classifier.weight", "classifier.bias"}
    assert result.parameters < sum(weight.numel() for weight in folder.values()) / 4


def test_without_an_adapter_all_weights_are_trained(snapshot, reviews):
    given = reviews(snapshot())
    result = PytorchTrainer().train(given, no_report)
    folder = load_file(TRANSFORMER / "model.safetensors")
    assert result.parameters == sum(weight.numel() for weight in folder.values())


def test_arrays_are_those_of_transformers_own_tokenizer(tokenize):
    texts = ["The cast was not dull.", "", "A word beyond the vocabulary", "The plot was clever. " * 20]
    found = tokenize()({"review": objects(texts)})
    expected = AutoTokenizer.from_pretrained(TRANSFORMER)(texts, padding="max_length", truncation=True, return_tensors="np")
    assert sorted(found) == ["attention_mask", "input_ids"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
    assert tokenize(max_length=8)({"review": objects(texts)})["input_ids"].shape == (4, 8)


def test_a_pair_is_tokenized_in_the_order_of_the_columns(tokenize, tmp_path):
    folder = shutil.copytree(TRANSFORMER, tmp_path / "pairs")
    changed(folder / "config.json", type_vocab_size=2)
    parts = json.loads((folder / "tokenizer.json").read_text())
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    parts["post_processor"]["pair"] = [*parts["post_processor"]["single"], *second]
    (folder / "tokenizer.json").write_text(json.dumps(parts))
    question, answer = ["Was the plot dull?"], ["It was moving."]
    found = tokenize(folder, ("question", "answer"))({"question": objects(question), "answer": objects(answer)})
    expected = AutoTokenizer.from_pretrained(folder)(
        question, answer, padding="max_length", return_token_type_ids=True, return_tensors="np"
    )
    assert sorted(found) == ["attention_mask", "input_ids", "token_type_ids"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


def test_more_texts_than_a_pair_are_refused(tokenize):
    with pytest.raises(
        UserError, match=r"tokenizer\.columns: a Hugging Face tokenizer reads one text or a pair, received a, b, c"
    ):
        tokenize(columns=("a", "b", "c"))


def changed(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


SIZES = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
OTHERS = {
    "distilbert": {"vocab_size": 300, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 48},
    "roberta": {**SIZES, "max_position_embeddings": 50, "pad_token_id": 1},
    "gpt2": {"vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 48, "pad_token_id": 0},
}


MODULES = {"distilbert": ["q_lin", "v_lin"]}


@pytest.mark.parametrize("modules", [[], ["query"]])
def test_layers_that_the_model_lacks_or_that_peft_cannot_choose_are_named(modules, snapshot, reviews, tmp_path):
    folder = shutil.copytree(TRANSFORMER, tmp_path / "other")
    config = AutoConfig.for_model("distilbert", num_labels=1, **OTHERS["distilbert"])
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    with pytest.raises(UserError, match=r"^trainer\.model\.lora\.modules: .*target.* Name layers of the model: .*k_lin.*q_lin"):
        PytorchTrainer().train(reviews(snapshot(folder, {"rank": 2, "modules": modules})), no_report)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_are_trained_and_exported_with_an_adapter(kind, snapshot, reviews, tmp_path):
    folder = shutil.copytree(TRANSFORMER, tmp_path / kind)
    AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, num_labels=1, **OTHERS[kind])).save_pretrained(
        folder
    )
    given = reviews(snapshot(folder, {"rank": 2, "modules": MODULES.get(kind, [])}), epochs=1)
    PytorchTrainer().train(given, no_report)
    features, _ = next(iter(given.eval.batches(64)))
    predict = PytorchTrainer.load_predictor(given.export_dir)
    np.testing.assert_allclose(predict({n: a[:3] for n, a in features.items()}), predict(features)[:3], atol=1e-5)


@pytest.fixture
def said():
    """What a stage says."""
    lines = []
    set_sink(lines.append)
    yield lines
    set_sink(None)


def test_a_folder_without_this_head_gets_a_new_one_which_is_said(snapshot, said, tmp_path):
    """A folder of a masked language model has neither head nor pooler; an adapter trains both."""
    folder = shutil.copytree(TRANSFORMER, tmp_path / "masked")
    AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(TRANSFORMER)).save_pretrained(folder)
    names = ("attention_mask", "input_ids")
    spec = ModelSpec(tuple(FeatureSpec(name, "int64", (40,)) for name in names), "multiclass", 3)
    model = snapshot(folder, {"rank": 2})(spec)
    assert model({name: torch.ones(2, 40, dtype=torch.int64) for name in names}).shape == (2, 3)
    assert any("untrained at first: bert.pooler.dense.bias, bert.pooler.dense.weight, classifier" in line for line in said)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad and "lora" not in name}
    assert {name.partition("modules_to_save")[0].rpartition("model.")[2] for name in trained} == {
        "bert.pooler.dense.",
        "classifier.",
    }


def test_weights_of_another_config_are_refused(snapshot, reviews, tmp_path):
    folder = shutil.copytree(TRANSFORMER, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    save_file({n: w for n, w in weights.items() if "layer.1.output" not in n}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=r"model\.safetensors lacks 4 weights that config\.json describes, such as bert\.encoder\."
    ):
        PytorchTrainer().train(reviews(snapshot(folder)), no_report)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(snapshot, reviews, tmp_path):
    folder = shutil.copytree(TRANSFORMER, tmp_path / "small")
    config = AutoConfig.from_pretrained(TRANSFORMER, vocab_size=20)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, and the model 20"):
        PytorchTrainer().train(reviews(snapshot(folder)), no_report)


def test_features_beside_the_texts_are_refused(snapshot):
    spec = ModelSpec((FeatureSpec("age", "float32", (1,)), FeatureSpec("input_ids", "int64", (40,))), "binary", 1)
    with pytest.raises(
        UserError, match=r"reads texts alone, and the data have also age; exclude these columns \(data\.exclude\)"
    ):
        snapshot()(spec)


def test_nothing_is_looked_up_in_a_network(snapshot, monkeypatch):
    def refuse(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    spec = ModelSpec((FeatureSpec("attention_mask", "int64", (40,)), FeatureSpec("input_ids", "int64", (40,))), "binary", 1)
    assert snapshot(lora={"rank": 2})(spec) is not None
