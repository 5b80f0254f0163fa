"""What a column is called is data: it reaches no code generator, graph, file name, page or metric unescaped."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.keys import key_of
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.positional import FILE, load_names
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from tests.contract.sklearn_trainer import SklearnTrainer
from tests.security.awkward import MARK, names
from tests.training_requests import FRAMEWORKS, in_memory, no_report


def quick(*values):
    return [pytest.param(value, marks=pytest.mark.core) for value in values]


@pytest.fixture
def request_of(make):
    """Returns a function: names of the features -> a request whose label is 1 where the first of them is above 0."""

    def build(columns, **changes):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(200, len(columns))).astype(np.float32)
        features = tuple(FeatureSpec(c, "float32", (1,)) for c in sorted(columns))
        arrays = {c: values[:, [i]] for i, c in enumerate(columns)}
        source = in_memory(arrays, (values[:, 0] > 0).astype(np.int64), features)
        return replace(make(epochs=1), spec=ModelSpec(features, "binary", 1), train=source, eval=source, **changes)

    return build


@pytest.mark.parametrize("trainer", [TensorflowTrainer, *quick(PytorchTrainer, SklearnTrainer)])
def test_a_name_is_never_run_and_never_part_of_an_export(trainer, request_of, tmp_path):
    canary = tmp_path / "canary"
    request = request_of([*names(canary), f"{MARK}\0null"])
    trainer().train(request, no_report)
    predict = trainer.load_predictor(request.export_dir)
    features, _ = next(iter(request.eval.batches(50)))
    assert predict(features).shape == (50, 1)
    assert not canary.exists()
    for file in (f for f in request.export_dir.rglob("*") if f.is_file() and f.name != FILE):
        assert MARK not in str(file.relative_to(request.export_dir))
        assert MARK.encode() not in _content(file), file


def _content(file):
    if not zipfile.is_zipfile(file):
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


@pytest.mark.parametrize("trainer", [TensorflowTrainer, *quick(PytorchTrainer)])
def test_features_are_identified_by_name_and_not_by_order(trainer, request_of):
    request = request_of(["b", 'a"', "c"])
    trainer().train(request, no_report)
    predict = trainer.load_predictor(request.export_dir)
    features, _ = next(iter(request.eval.batches(20)))
    backwards = dict(sorted(features.items(), reverse=True))
    np.testing.assert_array_equal(predict(features), predict(backwards))
    swapped = {**features, "b": features['a"'], 'a"': features["b"]}
    assert not np.allclose(predict(features), predict(swapped))


@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_compilers_see_no_column_name(trainer, request_of, said, tmp_path):
    canary = tmp_path / "canary"
    trainer().train(request_of(names(canary), accelerator=AcceleratorProfile(compile=True)), no_report)
    assert not canary.exists()
    assert not [line for line in said if "compile" in line], "the compiler took it"


def keras_model(spec):
    import keras

    inputs = {f.name: keras.Input(f.shape, name=f"i{i}") for i, f in enumerate(spec.features)}
    return keras.Model(inputs, keras.layers.Dense(1)(inputs['it"s']))


def torch_model(spec):
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, spec.outputs)

        def forward(self, features):
            return self.layer(features['it"s'])

    return Model()


@pytest.mark.core
@pytest.mark.parametrize(("trainer", "build"), [(TensorflowTrainer, keras_model), (PytorchTrainer, torch_model)])
def test_a_users_model_gets_the_real_names(trainer, build, request_of):
    request = request_of(['it"s', "other"], build_model=build)
    trainer().train(request, no_report)
    features, _ = next(iter(request.eval.batches(20)))
    assert trainer.load_predictor(request.export_dir)(features).shape == (20, 1)


@pytest.mark.parametrize("trainer", [TensorflowTrainer, *quick(PytorchTrainer)])
def test_an_export_of_an_older_version_is_refused(trainer, request_of):
    request = request_of(["a"])
    trainer().train(request, no_report)
    (request.export_dir / FILE).unlink()
    with pytest.raises(UserError, match="made by an older version, with column names in its code; train again"):
        trainer.load_predictor(request.export_dir)


@pytest.mark.core
def test_the_list_of_names_is_plain_text(tmp_path):
    (tmp_path / FILE).write_text('{"a": 1}')
    with pytest.raises(UserError, match=FILE):
        load_names(tmp_path)


@pytest.mark.core
def test_every_name_has_a_metric_key_of_its_own_that_mlflow_accepts(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run_id = tracking.create_run(uri, tracking.ensure_experiment(uri, "e", tmp_path), "run", {})
    run = tracking.Run(uri, run_id)
    columns = [*names(tmp_path / "canary"), "plain", 'a"', "a'", "a/b", "..", " ", "a" * 10_001]
    run.metrics({f"drift.{key_of(name)}": 1.0 for name in columns})
    run.metrics({f"auc/{name}": 1.0 for name in columns})
    run.metrics({"acc@5": 1.0, "acc#5": 1.0, "of: all": 1.0})
    assert not run.offline
    kept = tracking.client(uri).get_run(run_id).data.metrics
    assert len(kept) == 2 * len(columns) + 3
    assert {"drift.plain", "auc/plain", "of: all"} <= kept.keys()
