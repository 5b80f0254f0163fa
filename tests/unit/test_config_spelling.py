"""What YAML 1.1 reads as a boolean, a number or nothing is a text where the config takes texts."""

import pytest

from switchyard.components.errors import UserError
from switchyard.pipelines.config.load import load_config

pytestmark = pytest.mark.core
WORDS = [
    "yes",
    "no",
    "NO",
    "on",
    "off",
    "true",
    "False",
    "012",
    "1e3",
    "0x1F",
    "1_000",
    "2024-01-01",
    "12:30",
    "null",
    "~",
    "-1.50",
]


def load(tmp_path, yaml, *overrides):
    (tmp_path / "p.yaml").write_text(f"name: x\ndata: {{path: d.csv}}\n{yaml}\n")
    return load_config(tmp_path / "p.yaml", overrides=overrides)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_a_column_a_class_or_a_missing_value_as_spelled(word, tmp_path):
    weights = f"trainer: {{hyperparameters: {{class_weights: {{{word}: 2, other: 1}}}}}}"
    overrides = [f"data.missing_values=[{word}, x]", f"evaluation.slices=[{word}, [a, {word}]]"]
    config = load(tmp_path, f"label: {word}\n{weights}", *overrides)
    assert config.label == word
    assert config.trainer.hyperparameters.class_weights == {word: 2.0, "other": 1.0}
    assert config.data.missing_values == (word, "x")
    assert config.evaluation.slices == ((word,), ("a", word))


@pytest.mark.parametrize("word", WORDS)
def test_the_resolved_config_is_read_as_it_was_written(word, tmp_path):
    config = load(tmp_path, f"label: y\nevaluation: {{slices: [{word}]}}", f"data.exclude={word}")
    (tmp_path / "p.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "p.yaml") == config


def test_the_command_line_is_read_like_the_yaml(tmp_path):
    assert load(tmp_path, "label: y", "label=no").label == "no"


def test_a_switch_accepts_yamls_words_for_true_and_false(tmp_path):
    assert (
        load(tmp_path, "label: y\ntrainer: {accelerator: {compile: yes, shard_model: off}}").trainer.accelerator.compile is True
    )


def test_null_is_kept_where_it_is_allowed(tmp_path):
    config = load(tmp_path, "label: y\nserving: {model_name: null, infra_validation: ~}", "data.missing_values=null")
    assert (config.serving.model_name, config.serving.infra_validation, config.data.missing_values) == (None, None, None)


@pytest.mark.parametrize("where", ["trainer.model_parameters.activation", "beam.options.mode"])
def test_an_ambiguous_free_value_is_refused_with_the_quoting(where, tmp_path):
    with pytest.raises(UserError, match=rf"{where}: on can be a text or a boolean, and YAML reads true; write 'on' in quotes"):
        load(tmp_path, "label: y", f"{where}=on")


def test_a_free_value_keeps_its_unambiguous_type(tmp_path):
    parameters = load(
        tmp_path, "label: y", "trainer.model_parameters={a: true, b: 3, c: 0.5, d: 'on', e: null}"
    ).trainer.model_parameters
    assert parameters == {"a": True, "b": 3, "c": 0.5, "d": "on", "e": None}


@pytest.mark.parametrize(("word", "number"), [("010", 8), ("1:30", 90)])
def test_a_number_in_another_base_than_ten_is_refused(word, number, tmp_path):
    with pytest.raises(UserError, match=rf"epochs: YAML reads {word} in another base than ten, as {number}; write the number"):
        load(tmp_path, "label: y", f"trainer.hyperparameters.epochs={word}")


def test_a_key_has_the_type_of_its_field_under_each_of_its_names(tmp_path):
    file = tmp_path / "p.yaml"
    for name in ("storage_class_name", "storageClassName"):
        file.write_text(f"name: x\ndata: {{path: d.csv}}\nlabel: y\nkubeflow: {{workspace: {{size: 1Gi, {name}: no}}}}\n")
        assert load_config(file).kubeflow.workspace.storage_class_name == "no"
