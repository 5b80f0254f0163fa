"""Changes of images in training: what is sampled, the same for every shard and batch size, and nothing in evaluation."""

import numpy as np
import pytest
from scipy import ndimage

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError
from switchyard.components.ingest.config import AugmentConfig
from switchyard.components.training.augmentation import augmented, changed
from switchyard.components.training.example_source import Shard, blocks
from switchyard.components.training.examples import Examples, columns_of
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import trainer_settings

FEATURES = [FeatureSpec("photo", "float32", (6, 5, 3)), FeatureSpec("x", "float32", (1,))]
ALL = AugmentConfig(flip="both", shift=0.2, rotate=30)
ROWS = 23


@pytest.fixture(scope="module")
def source():
    random = np.random.default_rng(0)
    rows = {"photo": random.random((ROWS, 6, 5, 3)).astype(np.float32), "x": np.arange(ROWS, dtype=np.float32)}
    columns = columns_of(rows, np.arange(ROWS), FEATURES)
    return Examples(blocks(FEATURES), [tuple_part(columns, slice(0, 10)), tuple_part(columns, slice(10, ROWS))])


def tuple_part(columns, part):
    return tuple(a[part] for a in columns[0]), columns[1][part]


def epoch(source, batch_size=4, **order):
    """Returns the rows of an epoch by their label."""
    found = {}
    for features, labels in source.batches(batch_size, **order):
        found.update(zip(labels.tolist(), features["photo"], strict=True))
    return found


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[row], b[row]) for row in a)


def test_an_image_is_sampled_as_scipy_does():
    images = np.random.default_rng(1).random((8, 7, 10, 3)).astype(np.float32)
    draws = np.random.default_rng(2).random((8, 4))
    found = changed(images, draws, ALL)
    middle = np.array([3, 4.5])
    for image, (flips, down, right, angle), result in zip(images, draws, found, strict=True):
        flip = np.diag([1 - 2 * (int(flips * 4) >> 1), 1 - 2 * (int(flips * 4) & 1)])
        turn = np.radians((2 * angle - 1) * 30)
        matrix = flip @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        shift = 0.2 * (2 * np.array([down, right]) - 1) * (7, 10)
        for channel in range(3):
            expected = ndimage.affine_transform(
                image[..., channel].astype(np.float64), matrix, middle - matrix @ (middle + shift), order=1, mode="nearest"
            )
            np.testing.assert_allclose(result[..., channel], expected, atol=1e-5)


def test_flips_are_exact_and_half_of_each():
    images = np.random.default_rng(1).random((4000, 3, 4, 1)).astype(np.float32)
    draws = np.random.default_rng(2).random((4000, 4))
    turned = {"horizontal": images[:, :, ::-1], "vertical": images[:, ::-1], "both": images[:, ::-1, ::-1]}
    for flip, mirror in turned.items():
        found = changed(images, draws, AugmentConfig(flip=flip))
        is_mirrored = (found == mirror).all(axis=(1, 2, 3))
        kept = (found == images).all(axis=(1, 2, 3))
        assert abs(is_mirrored.mean() - (0.25 if flip == "both" else 0.5)) < 0.03
        assert (is_mirrored | kept).all() == (flip != "both")
        np.testing.assert_allclose(changed(images, draws, AugmentConfig(flip=flip, shift=1e-9)), found, atol=1e-6)


def test_a_shift_and_a_turn_have_their_directions():
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 4, 6] = 1
    moved = changed(image, np.array([[0, 1, 0.5, 0.5]]), AugmentConfig(shift=2 / 9))
    assert moved[0, 6, 6, 0] == pytest.approx(1)
    turned = changed(image, np.array([[0, 0.5, 0.5, 1]]), AugmentConfig(rotate=90))
    assert turned[0, 2, 4, 0] + turned[0, 6, 4, 0] == pytest.approx(1)


def test_every_shard_and_batch_size_sees_the_images_of_one(source):
    changes = augmented(source, {"photo": ALL})
    whole = epoch(changes, seed=7, epoch=2)
    assert sorted(whole) == list(range(ROWS))
    assert same(whole, epoch(changes, seed=7, epoch=2))
    assert same(whole, epoch(changes, batch_size=9, seed=7, epoch=2))
    parts = [epoch(changes, batch_size=6, seed=7, epoch=2, shard=Shard(i, 2)) for i in range(2)]
    assert same(whole, parts[0] | parts[1])


def test_a_split_larger_than_memory_is_changed_too(source):
    window = Examples(source.layout, source._parts, memory_bytes=1, window_bytes=1)
    found, plain = epoch(augmented(window, {"photo": ALL}), seed=1), epoch(window, seed=1)
    assert found.keys() == plain.keys()
    assert not any(np.array_equal(found[row], plain[row]) for row in plain)


def test_another_epoch_or_seed_has_other_images_and_none_without_a_seed(source):
    changes = augmented(source, {"photo": ALL})
    found = epoch(changes, seed=7, epoch=2)
    for other in ({"seed": 7, "epoch": 3}, {"seed": 8, "epoch": 2}):
        assert not any(np.array_equal(found[row], value) for row, value in epoch(changes, **other).items())
    assert same(epoch(changes), epoch(source))
    assert changes.resident is None
    assert augmented(source, {}) is source


def test_other_features_and_labels_stay_as_they_are(source):
    pairs = zip(augmented(source, {"photo": ALL}).batches(4, seed=3), source.batches(4, seed=3), strict=True)
    for (features, labels), (plain, plain_labels) in pairs:
        np.testing.assert_array_equal(features["x"], plain["x"])
        np.testing.assert_array_equal(labels, plain_labels)


DOCUMENT = {
    "name": "x",
    "data": {"path": "a.csv", "columns": {"photo": {"type": "image", "size": [8, 8], "augment": {"flip": "horizontal"}}}},
    "label": "y",
}


def test_the_training_stage_is_given_the_changes(tmp_path):
    settings = trainer_settings(load_config(None, document=DOCUMENT), tmp_path, "pytorch")
    assert settings.augment == {"photo": AugmentConfig(flip="horizontal")}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.columns.photo.augment={}", r"data\.columns\.photo\.augment: nothing is changed; set flip, shift or rotate"),
        ("data.columns.photo.augment.shift=0.7", r"data\.columns\.photo\.augment\.shift: .* 0\.5"),
        ("data.columns={photo: {type: text, augment: {flip: both}}}", r"photo\.augment: describes the type image"),
        ("preprocessing=features.py", r"data\.columns\.photo\.augment: .* preprocessing returns others"),
        ("trainer.framework=lightgbm", r"data\.columns\.photo\.augment: boosted trees have no use for it"),
    ],
)
def test_changes_that_would_not_be_made_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        load_config(None, document=DOCUMENT, overrides=[override])
