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


def test_the_schemas_own_comparators_are_limits():
    schema = text_format.Parse(
        'feature { name: "w" drift_comparator { infinity_norm { threshold: 0.2 } } skew_comparator { '
        "jensen_shannon_divergence { threshold: 0.3 } } }",
        schema_pb2.Schema(),
    )
    assert with_schemas_limits(LIMITS, schema, "drift")["features"] == {"w": {"warn": 0.2, "fail": 0.2}}
    assert with_schemas_limits(LIMITS, schema, "skew")["features"]["w"]["fail"] == pytest.approx(0.3)
    own = {**LIMITS, "features": {"w": {"warn": 0.5, "fail": 1}}}
    assert with_schemas_limits(own, schema, "drift")["features"]["w"]["fail"] == 1


def test_mutual_information_of_noise_is_none_and_of_a_copy_is_all():
    random = np.random.default_rng(0)
    label, noise = random.integers(0, 2, 2000), random.integers(0, 20, 2000)
    assert normalized_information(label, label) == pytest.approx(1, abs=1e-3)
    assert normalized_information(noise, label) < 0.01


def test_the_labels_values_against_the_schema(tmp_path):
    path = tmp_path / "s.pbtxt"
    path.write_text('feature { name: "y" type: BYTES string_domain { value: "n" value: "p" } }')
    assert check_label_values(path, "y", {"n": 5, "p": 5}, ON_ANOMALY).passed
    verdict = check_label_values(path, "y", {"n": 5, "q": 15}, ON_ANOMALY)
    assert "Expected: n, p. Seen: q. Rows: 75%" in verdict.message()
    assert check_label_values(path, "y", {"n": 5, "q": 15}, {**ON_ANOMALY, "features": {"y": "warn"}}).passed
    assert check_label_values(tmp_path / "none", "y", {"n": 1}, ON_ANOMALY).passed


def test_a_verdict_survives_its_file(tmp_path):
    verdict = Verdict([Finding("schema", "train", "x", "a", "b", "c", 0.5)], [], ["note"])
    verdict.save(str(tmp_path))
    assert Verdict.load(str(tmp_path)) == verdict
