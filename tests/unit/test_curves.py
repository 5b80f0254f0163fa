"""The areas under a binary task's curves, beside scikit-learn's of the same scores."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from switchyard.components.evaluation.bootstrap import weighted_metrics
from switchyard.components.evaluation.curves import bucket_of, curve_bins, precision_recall_area, roc_area, spread

pytestmark = pytest.mark.core


def bins(scores, positive):
    return [spread(curve_bins(bucket_of(scores)), of.astype(float)) for of in (positive, ~positive)]


@pytest.mark.parametrize("digits", [1, 2, 7])
def test_the_roc_area_equals_scikit_learns_with_and_without_ties(digits):
    random = np.random.default_rng(digits)
    positive = random.random(500) < 0.3
    scores = np.round((random.random(500) + positive * 0.3) / 1.3, digits).clip(1e-7, 1 - 1e-7).astype(np.float32)
    expected = roc_auc_score(positive, scores)
    assert float(roc_area(*bins(scores, positive))) == pytest.approx(expected, abs=1e-4 if digits == 7 else 1e-12)
    drawn = weighted_metrics("binary", positive.astype(float), scores[:, np.newaxis])["auc"](np.ones(500))
    assert float(drawn) == pytest.approx(float(roc_area(*bins(scores, positive))), abs=1e-12), "the interval is of the metric"


def test_areas_of_a_single_class_are_undefined():
    scores, all_of_it = np.array([0.2, 0.7], np.float32), np.array([True, True])
    assert np.isnan(roc_area(*bins(scores, all_of_it)))
    assert np.isnan(roc_area(*bins(scores, ~all_of_it)))
    assert np.isnan(precision_recall_area(*bins(scores, ~all_of_it)))
    assert precision_recall_area(*bins(scores, all_of_it)) == pytest.approx(1)


def test_a_perfect_model_has_areas_of_one_and_nan_scores_are_ranked():
    scores, positive = np.array([0.1, 0.2, 0.8, 1.0], np.float32), np.array([False, False, True, True])
    hits, misses = bins(scores, positive)
    assert float(roc_area(hits, misses)) == precision_recall_area(hits, misses) == 1
    assert bucket_of(np.array([np.nan, -1.0, 0.0, 0.5, 1.0, 7.0])).tolist() == [0, 0, 1, 5001, 10001, 10001]
