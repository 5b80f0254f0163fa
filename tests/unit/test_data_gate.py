"""The data gate's arithmetic and settings, without TFDV's statistics."""

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.baseline.contents import BaselineContents, Misfit
from components.validation.comparability import comparability_findings, with_comparability
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


def baseline(**changes):
    given = {"version": "3", "name": "m", "rows": 100, "judged": 97, "misfits": [Misfit("age", "is missing", 3)]}
    return BaselineContents(**{"framework": "pytorch", "model_uri": "", "previous_run": None, "note": "", **given, **changes})


COMPARABILITY = {
    "comparable": 0.9,
    "incomparable_champion": "keep",
    "on_anomaly": {"error": "fail", "warning": "warn", "features": {}},
}


def test_rows_that_the_champion_cannot_judge_are_a_warning_for_each_reason():
    [found] = comparability_findings(baseline(), "test", COMPARABILITY)
    assert (found.check, found.feature, found.share, found.action) == ("champion", "age", 0.03, "warn")
    assert "the champion cannot judge 3 of 100 rows" in found.sentence()
    assert "version 3 of m" in found.sentence()
    strict = {**COMPARABILITY, "on_anomaly": {"error": "fail", "warning": "warn", "features": {"age": "fail"}}}
    assert comparability_findings(baseline(), "test", strict)[0].action == "fail"


def test_a_champion_that_can_judge_too_little_is_said_with_what_will_become_of_the_candidate():
    [found] = comparability_findings(baseline(judged=50), "test", COMPARABILITY)
    assert "it can judge 50 of 100 rows" in found.sentence()
    assert "will be kept as challenger" in found.seen
    [found] = comparability_findings(baseline(judged=50), "test", {**COMPARABILITY, "incomparable_champion": "replace"})
    assert "replaced without a comparison" in found.seen


def test_nothing_is_said_of_a_champion_that_judges_every_row_or_is_not_there():
    assert comparability_findings(baseline(judged=100, misfits=[]), "test", COMPARABILITY) == []
    assert comparability_findings(baseline(version=None), "test", COMPARABILITY) == []


def test_a_column_of_another_type_that_the_champion_can_take_is_none():
    other = Finding("champion", "train", "age", "another type", "INT", "STRING", 1.0)
    assert with_comparability([other], baseline(judged=100, misfits=[]), "test", COMPARABILITY) == []
    few = baseline(judged=10, misfits=[Misfit("age", "must hold whole numbers", 90)])
    assert other in with_comparability([other], few, "test", COMPARABILITY), "it stops the run, as it did"
    assert other in with_comparability([other], baseline(obstacle="it predicts 'z'"), "test", COMPARABILITY)
