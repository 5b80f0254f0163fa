"""The default models of both frameworks have the same layers for each kind of feature."""

import math

import numpy as np
import pytest

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.training.default_model import image_filters, is_image
from switchyard.components.training.model_spec import ModelSpec

FEATURES = {
    "numbers": [FeatureSpec("a", "float32", (1,)), FeatureSpec("b", "float32", (7,))],
    "words": [FeatureSpec("w", "int64", (5,), 100), FeatureSpec("n", "int64", (2,))],
    "a grey image": [FeatureSpec("photo", "float32", (8, 8, 1))],
    "an oblong image with numbers": [FeatureSpec("photo", "float32", (37, 20, 3)), FeatureSpec("a", "float32", (1,))],
    "too small for an image": [FeatureSpec("photo", "float32", (3, 9, 1))],
    "a bag of words": [FeatureSpec("w", "int64", (5,), 100, "mean", "w_mask"), FeatureSpec("w_mask", "float32", (5,))],
    "words in a cube": [FeatureSpec("w", "int64", (4, 4, 2), 10)],
}


@pytest.mark.parametrize("features", FEATURES.values(), ids=list(FEATURES))
def test_both_frameworks_have_as_many_weights_and_give_logits(features):
    import torch  # PyTorch first: the reverse can crash

    from switchyard.components.training.pytorch.default_model import default_model as in_pytorch
    from switchyard.components.training.tensorflow.default_model import default_model as in_keras

    spec = ModelSpec(features=tuple(features), task="multiclass", outputs=3, parameters={})
    random = np.random.default_rng(0)
    batch = {f.name: random.integers(0, f.vocabulary_size or 2, (6, *f.shape)).astype(f.dtype) for f in features}
    keras_model, torch_model = in_keras(spec), in_pytorch(spec)
    assert keras_model.count_params() == sum(math.prod(p.shape) for p in torch_model.parameters())
    assert keras_model(batch).shape == (6, 3)
    assert torch_model({name: torch.from_numpy(values) for name, values in batch.items()}).shape == (6, 3)


@pytest.mark.parametrize("pool", ["mean", "sum"])
@pytest.mark.parametrize("size", [None, 7], ids=["numbers", "words"])
def test_the_order_of_a_bag_and_what_pads_it_change_no_score(pool, size):
    import torch

    from switchyard.components.training.pytorch.default_model import default_model as in_pytorch
    from switchyard.components.training.tensorflow.default_model import default_model as in_keras

    dtype = "int64" if size else "float32"
    features = (FeatureSpec("bag", dtype, (4,), size, pool, "bag_mask"), FeatureSpec("bag_mask", "float32", (4,)))
    spec = ModelSpec(features=features, task="binary", outputs=1)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], np.float32)
    rows = np.array([[1, 2, 3, 6], [3, 1, 2, 0], [1, 2, 2, 6], [6, 6, 6, 6], [0, 0, 0, 0], [1, 2, 0, 0]]).astype(dtype)
    keras_model, torch_model = in_keras(spec), in_pytorch(spec).eval()
    with torch.no_grad():
        of_torch = torch_model({"bag": torch.from_numpy(rows), "bag_mask": torch.from_numpy(mask)}).numpy()
    for scores in (np.asarray(keras_model({"bag": rows, "bag_mask": mask})), of_torch):
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores[[0, 3]], scores[[1, 4]], atol=1e-6)
        assert abs(scores[0] - scores[2]) > 1e-6
        assert abs(scores[0] - scores[5]) > 1e-6


def test_an_image_is_halved_until_a_side_is_small():
    assert image_filters((8, 8, 1)) == [16]
    assert image_filters((64, 48, 3)) == [16, 32, 64, 64]
    assert image_filters((4096, 4096, 3)) == [16, 32, 64, 64, 64, 64]
    assert not is_image((64, 48))
    assert not is_image((8, 8, 16))
