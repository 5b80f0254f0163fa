"""From the outputs of a run to its status and exit code, with the reason for a model that was not promoted."""

import json

import pytest

from switchyard.components.evaluation.results import CANDIDATE, Evaluation, ModelResult
from switchyard.pipelines.runners.outcome import run_result


class NoTracking:
    """A run without MLflow."""

    run_id = experiment_id = None


def ended(folder, registration, *, blessed=True):
    model = ModelResult("a", CANDIDATE, "a", "", None, {"accuracy": 0.9}, {}, {}, {}, True, blessed, [] if blessed else ["bad"])
    found = Evaluation("binary", "auc", "test", 10, "a", {"a": model}, [], {}, None, 0, "m has no champion yet", None, [])
    found.save(str(folder))
    (folder / "registration.json").write_text(json.dumps(registration))
    outputs = {"evaluation": {"evaluation": str(folder)}, "registry": {"registration": str(folder)}}
    return run_result("p", "a", NoTracking(), [], {}, outputs, [])


def test_a_blessed_model_whose_champion_moved_during_the_run_ends_with_code_4_and_the_reason(tmp_path):
    why = "m: the champion was version 1 when version 3 was evaluated and is version 2 now"
    found = ended(tmp_path, {"status": "challenger", "version": "3", "champion": "2", "why": why})
    assert (found.status, found.blessed, found.exit_code) == ("not_blessed", False, 4)
    assert found.error == f"not promoted: {why}"
    assert (found.model_version, found.champion) == ("3", "2")


@pytest.mark.parametrize(("status", "note"), [("champion", ""), ("deferred", "the model is not promoted")])
def test_a_champion_and_a_run_with_an_unreachable_registry_end_with_code_0(tmp_path, status, note):
    found = ended(tmp_path, {"status": status, "version": None, "champion": None, "why": ""})
    assert (found.status, found.exit_code) == ("blessed", 0)
    assert note in found.note


def test_a_model_that_is_not_blessed_ends_with_its_reasons(tmp_path):
    found = ended(tmp_path, {"status": "challenger", "version": "1", "champion": None, "why": ""}, blessed=False)
    assert (found.exit_code, found.error) == (4, "not blessed: bad")
