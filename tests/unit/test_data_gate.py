"""The data gate's arithmetic and settings, without TFDV's statistics."""

import dataclasses
import shlex

import numpy as np
import pytest
from google.protobuf import text_format
from scipy import special
from tensorflow_metadata.proto.v0 import schema_pb2

from switchyard.components.baseline.contents import BaselineContents, Misfit
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.chance import critical, is_new, largest_by_chance, power_divergence
from switchyard.components.data_gate.comparability import comparability_findings, with_comparability
from switchyard.components.data_gate.config import AnomalyActions, DataGateSettings, DriftConfig
from switchyard.components.data_gate.drift import distance_findings, jensen_shannon, schemas_bounds
from switchyard.components.data_gate.findings import Distance, Finding, Verdict, merged, option_for, remedy_for
from switchyard.components.data_gate.label_check import check_label_values
from switchyard.components.data_gate.leakage import normalized_information
from switchyard.components.data_gate.page import DataPart, data_report
from switchyard.pipelines.config.load import load_config

ON_ANOMALY = AnomalyActions()


COMPARATORS = text_format.Parse(
    'feature { name: "w" drift_comparator { infinity_norm { threshold: 0.2 } } skew_comparator { '
    "jensen_shannon_divergence { threshold: 0.3 } } }",
    schema_pb2.Schema(),
)


def test_the_schemas_own_comparators_are_limits_of_their_own_measure():
    """The distance is the root of the divergence that the schema bounds."""
    assert schemas_bounds(COMPARATORS, "drift") == {"w": {"l_infinity": pytest.approx(0.2)}}
    assert schemas_bounds(COMPARATORS, "skew") == {"w": {"jensen_shannon": pytest.approx(0.3**0.5)}}


def test_a_copy_of_the_label_has_all_of_its_information():
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
    assert check_label_values(schema, "y", {"n": 5, "q": 15}, AnomalyActions(features={"y": "warn"})).passed


def test_a_schema_that_cannot_be_read_is_not_judged_by_the_labels_values(tmp_path):
    assert check_label_values(tmp_path / "none", "y", {"n": 1}, ON_ANOMALY).passed


@pytest.mark.parametrize(("findings", "shown"), [([], "passed"), (["fail"], "stopped the run")])
def test_the_page_shows_whether_the_gate_passed_or_stopped_the_run(findings, shown):
    summary = DatasetSummary("f", [], {}, {}, {"train": 5}, 0, [], [], "y", "binary", [0, 1], {})
    verdict = Verdict([Finding("schema", "train", "x", "a", "b", "c", 0.5, action=action) for action in findings], [], [])
    page = data_report(DataPart(summary, {}, verdict))
    assert [words for words in (">passed<", ">stopped the run<") if words in page] == [f">{shown}<"]


def test_a_verdict_survives_its_file(tmp_path):
    verdict = Verdict([Finding("schema", "train", "x", "a", "b", "c", 0.5)], [], ["note"])
    verdict.save(str(tmp_path))
    assert Verdict.load(str(tmp_path)) == verdict


def test_a_distance_above_the_schemas_bound_of_its_measure_is_a_finding():
    far = Distance("drift", "train", "w", jensen_shannon=0.15, l_infinity=0.25, noise=0.05)
    near = Distance("drift", "train", "w", jensen_shannon=0.15, l_infinity=0.15, noise=0.05)
    bounds = schemas_bounds(COMPARATORS, "drift")
    assert [f.action for f in distance_findings([far], DriftConfig(), bounds)] == ["fail"]
    assert distance_findings([near], DriftConfig(), bounds) == []


def test_the_configs_limits_of_a_feature_take_precedence_over_the_schemas():
    far = Distance("drift", "train", "w", jensen_shannon=0.15, l_infinity=0.25, noise=0.05)
    own = DriftConfig(features={"w": {"warn": 0.5, "fail": 1}})
    assert distance_findings([far], own, schemas_bounds(COMPARATORS, "drift")) == []


def test_a_column_that_several_checks_name_is_one_finding_that_lists_them():
    out_of_range = Finding(
        "schema", "train", "x", "out-of-range values", "0 to 57", "7000 to 28000", 1.0, remedy="--set 'a=warn'"
    )
    in_eval = dataclasses.replace(out_of_range, where="eval")
    drifted = Finding(
        "drift", "train, against the previous run", "x", "its distribution has changed", "b", "c", remedy="--set 'd=1'"
    )
    warned = Finding(
        "skew", "serving sample", "x", "its distribution has changed", "b", "c", None, "warning", "warn", "--set 'e=1'"
    )
    [found] = merged([warned, out_of_range, in_eval, drifted])
    assert (found.check, found.where, found.action) == ("schema", "train", "fail")
    assert found.sentence() == (
        "schema: x (train): out-of-range values. Expected: 0 to 57. Seen: 7000 to 28000. Rows: 100%. "
        "Also: schema: the same (eval); drift: its distribution has changed (train, against the previous run); "
        "skew: its distribution has changed (serving sample). Option: --set 'a=warn' --set 'd=1'"
    )


def test_an_option_that_two_checks_name_is_listed_once():
    reviewed = Finding("schema", "train", "x", "column dropped", "a", "b", remedy=remedy_for("x", reviewed=True))
    champion = Finding("champion", "train", "x", "column is gone", "a", "b", remedy=remedy_for("x", reviewed=False))
    [found] = merged([champion, reviewed])
    assert found.remedy == "--set 'validation.on_anomaly.features.x=warn' (or accept it: switchyard schema accept)"


def test_a_leak_and_a_drift_of_one_column_are_two_findings_and_stay_apart():
    leak = Finding("leakage", "train", "x", "predicts the label by itself", "a", "b", None, "warning", "warn")
    drift = Finding("drift", "train", "x", "its distribution has changed", "a", "b")
    assert [f.check for f in merged([leak, drift])] == ["drift", "leakage"]


def test_a_growing_id_is_reported_once():
    leak = Finding("leakage", "train", "x", "looks like an id but is used as a feature", "a", "b", None, "warning", "warn")
    grows = Finding("drift", "train", "x", "grows with time", "a", "b", None, "warning", "warn")
    [found] = merged([leak, grows])
    assert found.also == ["drift: grows with time (train)"]


def test_findings_on_a_whole_split_stay_as_they_are():
    doubled = [Finding("leakage", split, "", "rows are duplicated across splits", "a", "b") for split in ("eval", "test")]
    assert merged(doubled) == doubled


def test_a_stopped_run_reports_one_line_per_finding():
    findings = [
        Finding("drift", "train", name, "its distribution has changed", "a", "b", remedy="--set 'x'\n  --set 'y'")
        for name in "pq"
    ]
    assert len(Verdict(findings).message().splitlines()) == 1 + 2 + 1


@pytest.mark.parametrize("name", ["age", "mean-radius", "a.b", "a b", "it's", "größe", "no: 1"])
def test_an_option_sets_the_value_of_the_very_column_whatever_its_name(name):
    """Read as a shell and the config's `--set` read it."""
    set_, text = shlex.split(option_for("validation.on_anomaly.features", name, "warn"))
    config = load_config(None, document={"name": "n", "data": {"path": __file__}, "label": "y"}, overrides=[text])
    assert set_ == "--set"
    assert config.validation.on_anomaly.features == {name: "warn"}


def test_the_statistic_keeps_to_its_chi_square_distribution_in_small_cells():
    """Two samples of one source of ten cells, five rows expected in each: at most one in a hundred is above the 99 % quantile."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(50, np.full(10, 0.1), size=(4000, 2))
    statistics = [power_divergence(now.astype(float), before.astype(float)) for now, before in drawn]
    assert np.mean(np.array(statistics) > special.chdtri(9, 0.01)) < 0.015


def test_the_more_columns_are_compared_the_more_is_explained_by_chance():
    assert critical(10, 1) < critical(10, 30) < critical(10, 1500)
    assert largest_by_chance(10, 30, 1400, 1400) < 0.1 < largest_by_chance(10, 30, 57, 1400)


def test_unseen_values_are_explained_by_as_many_values_seen_once():
    assert not is_new(3, 57, 400, 20, 30)
    assert is_new(30, 57, 400, 20, 30)


def test_a_single_unseen_row_is_chance_and_a_whole_split_of_them_is_not():
    assert not is_new(1, 200, 1400, 0, 30)
    assert is_new(200, 200, 1400, 0, 30)


def test_the_distance_of_disjoint_distributions_is_one_and_of_equal_ones_is_zero():
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)
    assert jensen_shannon(np.array([0.3, 0.7]), np.array([0.3, 0.7])) == 0


def baseline(**changes):
    given = {"version": "3", "name": "m", "rows": 100, "judged": 97, "misfits": [Misfit("age", "is missing", 3)]}
    return BaselineContents(**{"framework": "pytorch", "model_uri": "", "previous_run": None, "note": "", **given, **changes})


COMPARABILITY = DataGateSettings()


def test_rows_that_the_champion_cannot_score_are_a_warning_for_each_reason():
    [found] = comparability_findings(baseline(), "test", COMPARABILITY)
    assert (found.check, found.feature, found.share, found.action) == ("champion", "age", 0.03, "warn")
    assert "the champion cannot judge 3 of 100 rows" in found.sentence()
    assert "version 3 of m" in found.sentence()
    strict = DataGateSettings(on_anomaly={"features": {"age": "fail"}})
    assert comparability_findings(baseline(), "test", strict)[0].action == "fail"


def test_a_champion_that_scores_too_few_rows_is_reported_with_the_consequence_for_the_candidate():
    [found] = comparability_findings(baseline(judged=50), "test", COMPARABILITY)
    assert "it can predict 50 of 100 rows" in found.sentence()
    assert "will be kept as challenger" in found.seen
    [found] = comparability_findings(baseline(judged=50), "test", DataGateSettings(incomparable_champion="replace"))
    assert "replaced without a comparison" in found.seen


def test_a_champion_that_scores_every_row_or_does_not_exist_is_not_mentioned():
    assert comparability_findings(baseline(judged=100, misfits=[]), "test", COMPARABILITY) == []
    assert comparability_findings(baseline(version=None), "test", COMPARABILITY) == []


def test_a_retyped_column_that_the_champion_accepts_is_no_finding():
    summary = DatasetSummary("f", [], {}, {}, {"train": 1, "test": 1}, 0, [], [], "y", "binary", [0, 1], {})
    other = Finding("champion", "train", "age", "another type", "INT", "STRING", 1.0)
    label = Finding("champion", "train", "y", "another type", "INT", "STRING", 1.0)
    assert with_comparability([other, label], baseline(judged=100, misfits=[]), summary, COMPARABILITY) == []
    few = baseline(judged=10, misfits=[Misfit("age", "must hold whole numbers", 90)])
    assert other in with_comparability([other], few, summary, COMPARABILITY), "it stops the run, as it did"
    found = with_comparability([other, label], baseline(obstacle="its classes are 0, 1"), summary, COMPARABILITY)
    assert other in found
    assert label not in found, "the candidate will be kept as challenger, which is another finding"
    assert "its classes are 0, 1" in found[-1].anomaly
