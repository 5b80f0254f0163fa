"""The data gate's arithmetic and settings, without TFDV's statistics."""

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.validation.drift import with_schemas_limits
from components.validation.findings import Finding, Verdict
from components.validation.leakage import normalized_information
from components.validation.schema_text import check_label_values

ON_ANOMALY = {"error": "fail", "warning": "warn", "features": {}}
LIMITS = {"warn": 0.1, "fail": 0.5, "features": {}}


COMPARATORS = text_format.Parse(
    'feature { name: "w" drift_comparator { infinity_norm { threshold: 0.2 } } skew_comparator { '
    "jensen_shannon_divergence { threshold: 0.3 } } }",
    schema_pb2.Schema(),
)


@pytest.mark.parametrize(("check", "limit"), [("drift", 0.2), ("skew", 0.3)])
def test_the_schemas_own_comparators_are_limits(check, limit):
    features = with_schemas_limits(LIMITS, COMPARATORS, check)["features"]
    assert features == {"w": {"warn": pytest.approx(limit), "fail": pytest.approx(limit)}}


def test_the_configs_limits_go_before_the_schemas():
    own = {"w": {"warn": 0.5, "fail": 1}}
    assert with_schemas_limits({**LIMITS, "features": own}, COMPARATORS, "drift")["features"] == own


def test_a_copy_of_the_label_holds_all_of_its_information():
    label = np.random.default_rng(0).integers(0, 2, 2000)
    assert normalized_information(label, label) == pytest.approx(1, abs=1e-3)


def test_noise_holds_none_of_the_labels_information():
    random = np.random.default_rng(0)
    label, noise = random.integers(0, 2, 2000), random.integers(0, 20, 2000)
    assert normalized_information(noise, label) < 0.01


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "s.pbtxt"
    path.write_text('feature { name: "y" type: BYTES string_domain { value: "n" value: "p" } }')
    return path


def test_labels_that_the_schema_knows_pass(schema):
    assert check_label_values(schema, "y", {"n": 5, "p": 5}, ON_ANOMALY).passed


def test_a_label_that_the_schema_does_not_know_fails_with_its_share_of_the_rows(schema):
    verdict = check_label_values(schema, "y", {"n": 5, "q": 15}, ON_ANOMALY)
    assert not verdict.passed
    assert "Expected: n, p. Seen: q. Rows: 75%" in verdict.message()


def test_a_label_that_the_schema_does_not_know_passes_where_the_config_only_warns(schema):
    assert check_label_values(schema, "y", {"n": 5, "q": 15}, {**ON_ANOMALY, "features": {"y": "warn"}}).passed


def test_a_schema_that_cannot_be_read_is_not_judged_by_the_labels_values(tmp_path):
    assert check_label_values(tmp_path / "none", "y", {"n": 1}, ON_ANOMALY).passed


def test_a_verdict_survives_its_file(tmp_path):
    verdict = Verdict([Finding("schema", "train", "x", "a", "b", "c", 0.5)], [], ["note"])
    verdict.save(str(tmp_path))
    assert Verdict.load(str(tmp_path)) == verdict
