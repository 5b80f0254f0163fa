"""What MLflow's pages say of a run and of a version."""

import dataclasses
import re
from types import SimpleNamespace

import pytest

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.evaluation.page import evaluation_sections
from switchyard.components.evaluation.results import CANDIDATE, CHAMPION, Comparison, Evaluation, ModelResult
from switchyard.components.evaluation.row_plots import confusion_metrics
from switchyard.components.registration.descriptions import model_card, next_step, run_description
from switchyard.components.text.markdown import plain
from switchyard.components.tracking.model_registry import Registration
from switchyard.pipelines.runners.kubeflow.task.views import write_views

SUMMARY = DatasetSummary(
    fingerprint="f" * 64,
    files=["loans.csv"],
    columns={"age": "integer", "<b>": "string"},
    missing={},
    rows={"train": 800, "eval": 100, "test": 100},
    bad_rows=0,
    bad_row_samples=[],
    empty_columns=[],
    label="paid",
    task="binary",
    classes=["no", "yes"],
    class_counts={"no": 700, "yes": 100},
)


def evaluation(slices=None, failures=()):
    metrics, intervals = {"example_count": 100.0, "auc": 0.91, "loss": 0.3}, {"auc": [0.88, 0.94]}
    blessed = not failures
    model = ModelResult("a", CANDIDATE, "pytorch", "u", None, metrics, intervals, slices or {}, {}, blessed, blessed, [*failures])
    champion = ModelResult(CHAMPION, CHAMPION, "tensorflow", "v", "3", {"auc": 0.9}, {}, {}, {}, True, True)
    better = Comparison("a", CHAMPION, "auc", 0.01, 0.002, 0.02, 0.99)
    models = {"a": model, CHAMPION: champion}
    return Evaluation("binary", "auc", "test", 100, "a", models, [better], {"auc": {"lower_bound": 0.8}}, "3", 100, "", "3", [])


def test_a_run_says_its_verdict_and_figures_and_links_to_its_report():
    text = run_description("a is champion: m version 4", "m", evaluation(), SUMMARY, ("1", "abc"))
    assert text.startswith(f"**Blessed.** {plain('a is champion: m version 4')}")
    assert "| a | blessed | 0.8800 to 0.9400 | 0.91 | 0.3 |" in text
    assert plain("a against champion: auc +0.0100 (95 % interval +0.0020 to +0.0200)") in text
    assert "(#/experiments/1/runs/abc/artifacts/report/report.html)" in text
    assert "train 800, eval 100, test 100" in text
    assert "switchyard run" in text


@pytest.mark.parametrize(
    ("status", "failures", "step"),
    [
        ("champion", (), "To return to version 3: switchyard models rollback 'my model' --why REASON"),
        ("challenger", ("worse",), "To promote it anyway: switchyard models promote 'my model' 4 --force --why REASON"),
        ("challenger", (), "To promote it anyway: switchyard models promote 'my model' 4 --why REASON"),
        ("deferred", (), "To register it when MLflow is reachable: switchyard upload"),
        ("not blessed", ("worse",), ""),
    ],
)
def test_a_run_names_the_command_that_changes_what_it_decided(status, failures, step):
    found = evaluation(failures=failures)
    assert next_step("my model", Registration(status, "4", "3"), found) == step
    text = run_description("", "my model", found, SUMMARY, None, step)
    assert plain(step) in text
    assert "\n\n\n" not in text


def test_a_first_champion_has_no_version_to_return_to():
    first = dataclasses.replace(evaluation(), standing_champion=None)
    assert next_step("m", Registration("champion", "1", "1"), first) == ""


def test_a_page_shows_the_worst_slices_first_and_those_without_a_figure_last():
    slices = {"a=1": {"auc": 0.9}, "a=2": {}, "a=3": {"auc": 0.5}, "a=4": {"auc": float("nan")}, "a=5": {"auc": 0.7}}
    _, section, *_ = evaluation_sections(evaluation(slices), SUMMARY)
    assert [row[0] for row in section["table"]["rows"]] == ["a=3", "a=5", "a=1", "a=2", "a=4"]
    assert section["text"] == "The worst by auc first."
    assert section["table"]["head"] == ["slice", "auc", "champion"]


def test_a_run_without_an_mlflow_server_has_no_links():
    assert "#/" not in run_description("", "m", evaluation(), SUMMARY, None)


def test_a_refused_model_is_no_blessed_one():
    assert run_description("auc is too low", "m", evaluation(failures=["auc is too low"]), SUMMARY, None).startswith(
        "**Not blessed.** auc is too low"
    )


def test_a_card_has_metrics_worst_slices_thresholds_data_and_limits():
    slices = {f"age={i}": {"auc": 0.5 + i / 100, "example_count": 10.0} for i in range(9)}
    found = evaluation(slices)
    found = dataclasses.replace(found, notes=["a note"])
    card = model_card(found.models["a"], found, SUMMARY, "better", "d" * 64)
    assert "| auc | 0.91 | 0.8800 to 0.9400 | 0.9 |" in card
    assert "champion, version 3" in card.replace("\\", "")
    worst = [line for line in card.splitlines() if line.startswith("| age")]
    assert [line.split("|")[2].strip() for line in worst] == ["0.5", "0.51", "0.52", "0.53", "0.54"]
    assert "lower_bound 0.8" in card.replace("\\", "")
    assert "* a note" in card
    assert f"`{'f' * 16}`" in card
    assert f"`{'d' * 64}`" in card


def test_a_card_names_the_packages_and_the_image_that_trained_the_model():
    trained = {"switchyard.lock": "sha256:12 of requirements.lock", "switchyard.image": "registry.example.org/a@sha256:34"}
    card = model_card(evaluation().models["a"], evaluation(), SUMMARY, "", "", environment=trained)
    assert f"packages {plain('sha256:12 of requirements.lock')}; image: {plain('registry.example.org/a@sha256:34')}" in card


def test_worst_means_largest_for_a_loss():
    slices = {f"age={i}": {"loss": i / 10, "example_count": 10.0} for i in range(9)}
    found = dataclasses.replace(evaluation(slices), metric="loss")
    card = model_card(found.models["a"], found, SUMMARY, "", "")
    assert card.index("| age\\=8") < card.index("| age\\=7")


def test_the_worst_slices_by_a_metric_of_the_users_are_those_of_the_direction_that_decides():
    slices = {f"age={i}": {"cost": i / 10, "example_count": 10.0} for i in range(9)}
    for rising, order in ((False, (8, 7)), (True, (0, 1))):
        found = dataclasses.replace(evaluation(slices), task="custom", metric="cost", higher_is_better=rising)
        card = model_card(found.models["a"], found, SUMMARY, "", "")
        assert card.index(f"| age\\={order[0]}") < card.index(f"| age\\={order[1]}")


def test_a_card_names_the_version_that_the_training_started_from():
    found = evaluation()
    started = {"start_from": "models:/loans/3", "start_from.digest": "e" * 64}
    card = model_card(found.models["a"], found, SUMMARY, "", "", started)
    assert f"Training started from {plain('models:/loans/3')}, digest `{'e' * 64}`" in card
    assert "started from" not in model_card(found.models["a"], found, SUMMARY, "", "")


def test_the_card_of_an_ensemble_begins_with_its_members():
    found = evaluation()
    card = model_card(found.models["a"], found, SUMMARY, "", "", members="0.6250 tensorflow, 0.3750 pytorch")
    assert card.splitlines()[2] == f"Weighted mean of its members' predictions: {plain('0.6250 tensorflow, 0.3750 pytorch')}"


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "[x](http://example.com)", "a | b", "`c`", "![](x)"])
def test_names_of_the_data_are_no_markup(name):
    found = evaluation({f"{name}=1": {"auc": 0.5, "example_count": 1.0}})
    card = model_card(found.models["a"], found, dataclasses.replace(SUMMARY, label=name, files=[name]), name, "")
    assert name not in card
    assert plain(name) in card


def test_a_table_that_is_too_long_leaves_out_nothing_else():
    found = evaluation()
    found.models["a"].metrics.update({f"auc/label_{i}": 0.5 for i in range(300)})
    card = model_card(found.models["a"], found, SUMMARY, "better", "d" * 64)
    assert "### Metrics" not in card
    assert "### Data" in card
    assert f"`{'d' * 64}`" in card
    assert card.endswith("More is in the report of the run.")
    text = run_description("a is champion", "m", found, SUMMARY, ("1", "abc"))
    assert "(#/experiments/1/runs/abc/artifacts/report/report.html)" in text


def test_a_card_fits_into_mlflows_column_and_says_what_is_left_out():
    found = dataclasses.replace(evaluation(), notes=[f"note {i} {'x' * 100}" for i in range(100)])
    card = model_card(found.models["a"], found, SUMMARY, "", "")
    assert len(card) <= 5000
    assert "### Data" in card
    assert card.endswith("More is in the report of the run.")


def test_curves_and_metrics_of_classes_depend_on_no_scale_of_the_sample_weights():
    curves, metrics = [], []
    for scale in (1.0, 2.0**-60):
        counts = [(0.0, 40, 60, 0, 0), (0.5, 30, 10, 50, 10), (1.0, 0, 0, 60, 40)]
        rows = [dict(zip(("threshold", "tp", "fp", "tn", "fn"), (t, *(scale * n for n in of)), strict=True)) for t, *of in counts]
        found = evaluation()
        model = dataclasses.replace(found.models["a"], plots={"confusion": rows})
        *_, section = evaluation_sections(dataclasses.replace(found, models={"a": model}), SUMMARY)
        curves.append([re.findall(r' d="([^"]*)"', plot) for plot in section["plots"][:2]])
        cells = [{"actual": a, "predicted": p, "count": scale * (1 + a + 2 * p)} for a in range(3) for p in range(3)]
        metrics.append(confusion_metrics({"multiclass": cells}, 3))
    assert curves[0] == curves[1]
    assert metrics[0] == pytest.approx(metrics[1])


def test_kubeflows_curve_is_that_of_sample_weights_whose_sum_is_below_1(tmp_path):
    rows = [
        {"threshold": 0.5, "tp": 0.03, "fp": 0.01, "tn": 0.03, "fn": 0.01},
        dict.fromkeys(("threshold", "tp", "fp", "tn", "fn"), 0),
    ]
    found = evaluation()
    model = dataclasses.replace(found.models["a"], plots={"confusion": rows})
    dataclasses.replace(found, models={"a": model}).save(str(tmp_path))
    points = []
    view = SimpleNamespace(path=str(tmp_path / "roc"), log_roc_data_point=lambda **point: points.append(point))
    write_views("evaluation", "ModelEvaluation", str(tmp_path), {"evaluation_roc": view})
    assert [(p["fpr"], p["tpr"]) for p in points] == [pytest.approx((0.25, 0.75)), (0, 0)]
