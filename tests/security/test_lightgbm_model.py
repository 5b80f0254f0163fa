"""A `model.txt` that was changed is refused before LightGBM, which trusts its text, sees it."""

import re
import time
import tracemalloc

import numpy as np
import pytest

from switchyard.components.errors import UserError
from switchyard.components.training.lightgbm.library import lightgbm
from switchyard.components.training.lightgbm.model_file import FILE, load_model, save_model
from switchyard.components.training.lightgbm.predictor import LightgbmPredictor
from switchyard.components.training.positional import save_names

pytestmark = pytest.mark.core

COLUMNS = 3


def rows(count=600):
    random = np.random.default_rng(0)
    return np.column_stack([random.integers(0, 40, count), *random.normal(size=(2, count))]).astype(np.float64)


def booster(objective="binary", rounds=5, **given):
    x = rows()
    label = (x[:, 0] % 3 + x[:, 1] > 1).astype(int) + (x[:, 2] > 1 if objective == "multiclass" else 0)
    params = {"objective": objective, "verbosity": -1, "num_threads": 1, "min_data_per_group": 5, "seed": 1, **given}
    if objective == "multiclass":
        params["num_class"] = 3
    return lightgbm.train(params, lightgbm.Dataset(x, label, categorical_feature=[0]), rounds)


@pytest.fixture(scope="module")
def text():
    """A model with splits by numbers and by categories."""
    found = booster().model_to_string()
    assert re.search("^num_cat=[1-9]", found, re.MULTILINE)
    return found


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_a_model_predicts_the_same_after_it_was_written_and_read(objective, tmp_path):
    model = booster(objective)
    save_model(model.model_to_string(), tmp_path / FILE)
    save_names(tmp_path, ["all"])
    scores = LightgbmPredictor.load_predictor(tmp_path)({"all": rows()})
    np.testing.assert_array_equal(scores, model.predict(rows()).astype(np.float32).reshape(len(scores), -1))


def test_trees_without_a_split_are_written_and_read(tmp_path):
    model = booster(min_data_in_leaf=500)
    save_model(model.model_to_string(), tmp_path / FILE)
    assert lightgbm.Booster(model_str=load_model(tmp_path / FILE)).predict(rows()) == pytest.approx(model.predict(rows()))


def test_a_file_contains_neither_parameters_nor_names(text, tmp_path):
    save_model(text, tmp_path / FILE)
    written = (tmp_path / FILE).read_text()
    assert "parameters" not in written
    assert "tree_sizes" not in written
    assert load_model(tmp_path / FILE) == written


def once(pattern, replacement):
    return lambda text: re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)


CHANGES = {
    "a child that is its parent": once(r"^left_child=\S+", "left_child=0"),
    "a child that is not there": once(r"^right_child=\S+", "right_child=4000"),
    "a leaf that is not there": once(r"^left_child=\S+", "left_child=-4000"),
    "a column that is not there": once(r"^split_feature=\S+", "split_feature=3"),
    "a negative column": once(r"^split_feature=\S+", "split_feature=-1"),
    "an unknown rule": once(r"^decision_type=\S+", "decision_type=16"),
    "fewer values than leaves": once(r"^leaf_value=\S+ ", "leaf_value="),
    "more leaves than values": once(r"^num_leaves=\d+", "num_leaves=90"),
    "leaves without number": once(r"^num_leaves=\d+", "num_leaves=2000000000"),
    "no leaves": once(r"^num_leaves=\d+", "num_leaves=-1"),
    "a value that is no number": once(r"^leaf_value=\S+", "leaf_value=nan"),
    "a value beyond all numbers": once(r"^leaf_value=\S+", "leaf_value=1e999"),
    "categories beyond their list": once(r"^cat_boundaries=0 \d+", "cat_boundaries=0 4000"),
    "categories that go back": once(r"^cat_boundaries=0", "cat_boundaries=5"),
    "a set of categories that is not there": once(r"^num_cat=\d+", "num_cat=1"),
    "linear leaves": once(r"^is_linear=0", "is_linear=1"),
    "a value given twice": once(r"^(leaf_value=.*)$", r"\1\n\1"),
    "columns without number": once(r"^max_feature_idx=2", "max_feature_idx=99999999"),
    "more columns than names": once(r"^max_feature_idx=2", "max_feature_idx=9999999"),
    "fewer columns": once(r"^max_feature_idx=2", "max_feature_idx=0"),
    "another objective": once(r"^objective=.*", "objective=custom"),
    "classes without number": once(r"^objective=.*", "objective=multiclass num_class:99999"),
    "another version": once(r"^version=v4", "version=v3"),
    "trees in another order": once(r"^Tree=1", "Tree=2"),
    "no trees": lambda text: text.partition("\nTree=")[0],
    "nothing": lambda text: "",
    "text": lambda text: "tree\nversion=v4\n" * 1000,
    "a byte": lambda text: text.replace("leaf_value=", "leaf_value=\x00", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_refused(change, text, tmp_path):
    changed = CHANGES[change](text)
    assert changed != text
    (tmp_path / FILE).write_text(changed)
    with pytest.raises(UserError, match=r"model: model\.txt is refused: .*train again"):
        load_model(tmp_path / FILE)


def test_false_sizes_are_refused_before_they_are_read(text, tmp_path):
    (tmp_path / FILE).write_text(once(r"^tree_sizes=.*", "tree_sizes=999999999 -5 1 1 1")(text))
    assert lightgbm.Booster(model_str=load_model(tmp_path / FILE)).predict(rows()).shape == (600,)


def test_memory_follows_the_size_of_the_file(text, tmp_path):
    """Also where a list of numbers has no length that is known before."""
    size = 500_000
    (tmp_path / FILE).write_text(once(r"^cat_threshold=", f"cat_threshold={'1 ' * size}")(text))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="categories are not within their limits"):
            load_model(tmp_path / FILE)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2 * size
    finally:
        tracemalloc.stop()


def test_a_tree_that_is_a_chain_is_read_in_time(tmp_path):
    leaves = 1 << 17
    splits = leaves - 1
    (tmp_path / FILE).write_text(chain(leaves))
    began = time.process_time()
    booster = lightgbm.Booster(model_str=load_model(tmp_path / FILE))
    assert booster.predict(np.zeros((1, COLUMNS)), num_threads=1, raw_score=True) == pytest.approx(splits)
    assert time.process_time() - began < 10


def chain(leaves):
    """A tree whose every split has a leaf on its left; the last leaf is reached by zeros, and holds the number of splits."""
    splits = leaves - 1
    lists = {
        "split_feature": [0] * splits,
        "split_gain": [1] * splits,
        "threshold": [-1] * splits,
        "decision_type": [2] * splits,
        "left_child": range(-1, -splits - 1, -1),
        "right_child": [*range(1, splits), -leaves],
        "leaf_value": range(leaves),
        **dict.fromkeys(("leaf_weight", "leaf_count"), [1] * leaves),
        **dict.fromkeys(("internal_value", "internal_weight", "internal_count"), [1] * splits),
    }
    values = "\n".join(f"{name}={' '.join(map(str, of))}" for name, of in lists.items())
    names = " ".join(f"Column_{i}" for i in range(COLUMNS))
    head = f"tree\nversion=v4\nmax_feature_idx={COLUMNS - 1}\nobjective=binary sigmoid:1\nfeature_names={names}\n"
    return f"{head}\nTree=0\nnum_leaves={leaves}\nnum_cat=0\n{values}\nis_linear=0\n\n\nend of trees\n"


def test_a_file_that_is_no_ascii_or_is_missing_is_refused(tmp_path):
    with pytest.raises(UserError, match="FileNotFoundError"):
        load_model(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is refused"):
        load_model(tmp_path / FILE)
