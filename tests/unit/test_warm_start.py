"""A training that starts from a version: which words have which rows, which weights match, and what the config refuses."""

from pathlib import Path

import numpy as np
import pytest

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.training.config import TrainerConfig
from switchyard.components.training.matching import Model, fill, frozen
from switchyard.components.training.start import Origin, Start, start_of
from switchyard.components.training.vocabularies import FILE, Vocabulary, moved, vocabularies_json

FEATURES = (FeatureSpec("city", "int64", (1,), 5), FeatureSpec("kind", "int64", (1,), 3), FeatureSpec("x", "float32", (2,)))


class Tables:
    """A linear model of two embeddings and two numbers, whose weights are NumPy arrays."""

    def __init__(self, cities=5, kinds=3, extra=()):
        self.weights = {
            "city": np.zeros((cities, 2)),
            "kind": np.zeros((kinds, 2)),
            "dense": np.zeros((2, 2)),
            "bias": np.zeros(2),
        }
        self.weights |= {name: np.zeros(2) for name in extra}
        self.indices = 0.0

    def write(self, values):
        for name, value in values.items():
            self.weights[name] = np.array(value, dtype=float).reshape(self.weights[name].shape)

    def outputs(self, batch):
        w = self.weights
        rows = w["city"][batch["city"][:, 0]] + w["kind"][batch["kind"][:, 0]] + batch["x"] @ w["dense"] + w["bias"]
        return rows + self.indices * batch["city"]

    def start(self, given, how=None, features=FEATURES, initialize=()):
        start = Start("taxi version 3", Path("none"), {"city": how} if how else {}, initialize)
        fill(Model(features, {k: v.copy() for k, v in self.weights.items()}, self.write, self.outputs), given, start)
        return self.weights


def given(cities=4, **more):
    rng = np.random.default_rng(0)
    return {"city": rng.normal(size=(cities, 2)), "kind": rng.normal(size=(3, 2)), "dense": np.eye(2), "bias": np.ones(2), **more}


def test_rows_follow_their_words_and_unknown_words_keep_theirs():
    how = moved(Vocabulary(5, ("a", "b", "c"), before=1), Vocabulary(6, ("d", "c", "a", "b"), before=1))
    np.testing.assert_array_equal(how.old, [0, -1, 3, 1, 2, 4])
    assert how.old_size == 5
    np.testing.assert_array_equal(how.kept, [True, False, True, True, True, True])


def test_a_vocabulary_in_another_order_moves_and_an_equal_one_does_not():
    old = Vocabulary(3, ("a", "b"))
    assert moved(old, Vocabulary(3, ("a", "b"))) is None
    np.testing.assert_array_equal(moved(old, Vocabulary(3, ("b", "a"))).old, [1, 0, 2])


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (Vocabulary(3, known=False), "cannot be followed"),
        (Vocabulary(3, tokenizer="2"), "tokenizer"),
        (Vocabulary(3), "in one of them only"),
        (Vocabulary(4, ("a", "b")), "other indices for padding"),
    ],
)
def test_indices_whose_words_cannot_be_compared_are_refused(new, why):
    with pytest.raises(ValueError, match=why):
        moved(Vocabulary(3, ("a", "b")), new)


def test_weights_with_a_row_for_each_word_are_found_and_follow_the_words():
    version = given()
    how = moved(Vocabulary(4, ("a", "b", "c")), Vocabulary(5, ("c", "d", "a", "b")))
    weights = Tables().start(version, how)
    np.testing.assert_array_equal(weights["city"], [version["city"][2], [0, 0], *version["city"][[0, 1, 3]]])
    for name in ("kind", "dense", "bias"):
        np.testing.assert_array_equal(weights[name], version[name])


def test_rows_of_another_feature_with_as_many_words_stay():
    features = (FeatureSpec("city", "int64", (1,), 3), *FEATURES[1:])
    version = given(cities=3)
    weights = Tables(cities=3).start(version, moved(Vocabulary(3, ("a", "b")), Vocabulary(3, ("b", "a"))), features)
    np.testing.assert_array_equal(weights["city"], version["city"][[1, 0, 2]])
    np.testing.assert_array_equal(weights["kind"], version["kind"])


def test_indices_that_are_used_as_numbers_are_refused():
    model = Tables()
    model.indices = 1.0
    with pytest.raises(UserError, match=r"vocabulary of 'city' is not that of taxi version 3 \(4 indices there, 5 here\)"):
        model.start(given(), moved(Vocabulary(4, ("a", "b", "c")), Vocabulary(5, ("c", "d", "a", "b"))))


def test_what_does_not_match_is_named():
    with pytest.raises(UserError) as refused:
        Tables(extra=["head"]).start(given(old_head=np.zeros(2), bias=np.zeros(3)))
    assert "only in the model: head; only in the version: old_head" in str(refused.value)
    assert "of another shape: bias ([3] there, [2] here), city ([4, 2] there, [5, 2] here)" in str(refused.value)


def test_weights_that_are_to_start_as_initialized_do():
    version = given(cities=5, old_head=np.zeros(7))
    weights = Tables(extra=["head"]).start(version, initialize=("*head", "dense"))
    np.testing.assert_array_equal(weights["dense"], np.zeros((2, 2)))
    np.testing.assert_array_equal(weights["city"], version["city"])
    with pytest.raises(UserError, match=r"trainer.initialize: 'x\*' matches no weight"):
        Tables().start(version, initialize=("x*",))


def test_patterns_freeze_by_name_and_never_all():
    names = ["encoder.0.weight", "encoder.0.bias", "head.weight"]
    assert frozen(["encoder.*"], names) == set(names[:2])
    assert frozen([], names) == set()
    with pytest.raises(UserError, match=r"trainer.freeze: 'decoder.\*' matches no weight; the weights: encoder"):
        frozen(["encoder.*", "decoder.*"], names)
    with pytest.raises(UserError, match="freezes all 3 weights"):
        frozen(["*"], names)


ORIGIN = Origin("taxi", "3", "d" * 64, "pytorch", "binary", ("no", "yes"), (), ("city", "x"))
PREDICTS = {"task": "binary", "classes": ["no", "yes"], "targets": []}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"framework": "tensorflow"}, "taxi version 3 is a model of pytorch, and the trainer is tensorflow"),
        ({"predicts": {**PREDICTS, "classes": ["yes", "no"]}}, "classes: no, yes there, yes, no here"),
        ({"features": (FeatureSpec("city", "int64", (1,), 3), FeatureSpec("y", "float32", (1,)))}, "only there: x; only here: y"),
    ],
)
def test_a_version_of_another_framework_or_data_is_refused(changes, why, tmp_path):
    ORIGIN.save(tmp_path)
    (tmp_path / FILE).write_text(vocabularies_json({"city": Vocabulary(3, ("a", "b"))}))
    usual = {"framework": "pytorch", "predicts": PREDICTS, "initialize": ()}
    usual["features"] = (FeatureSpec("city", "int64", (1,), 3), FeatureSpec("x", "float32", (1,)))
    assert start_of(tmp_path, tmp_path, **usual) == Start("taxi version 3", tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=why):
        start_of(tmp_path, tmp_path, **{**usual, **changes})


def test_without_a_champion_a_training_starts_fresh(tmp_path):
    Origin("taxi").save(tmp_path)
    assert start_of(tmp_path, tmp_path, framework="pytorch", predicts=PREDICTS, features=(), initialize=()) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"start_from": "taxi"}, "'taxi' is no registered version; allowed: champion"),
        ({"framework": "lightgbm", "start_from": "champion"}, "start_from: lightgbm has no weights"),
        ({"framework": "lightgbm", "freeze": "a"}, "freeze: lightgbm has no weights"),
        ({"framework": ["tensorflow", "pytorch"], "start_from": "champion"}, "several frameworks need one each"),
        (
            {"framework": "pytorch", "model": {"huggingface": "m", "lora": {}}, "start_from": "champion"},
            "start_from: LoRA trains matrices that a registered version does not hold",
        ),
        ({"initialize": ["head.*"]}, "without start_from all weights start as initialized"),
        ({"start_from": {"torch": "champion"}}, "start_from: 'torch' is not a framework"),
    ],
)
def test_the_config_refuses(given, why):
    with pytest.raises(ValueError, match=why):
        TrainerConfig(**given)


def test_each_framework_has_its_own_starting_point():
    frameworks = {"framework": ["tensorflow", "pytorch"]}
    config = TrainerConfig(**frameworks, start_from={"pytorch": "models:/taxi/3"}, freeze={"pytorch": ["a.*"]})
    assert (config.start_for("pytorch"), config.freeze_for("pytorch")) == ("models:/taxi/3", ("a.*",))
    assert (config.start_for("tensorflow"), config.freeze_for("tensorflow")) == (None, ())
