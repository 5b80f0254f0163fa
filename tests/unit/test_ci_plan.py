"""What CI runs: chosen from what changed and what passed, by measured seconds, never by the clock."""

import subprocess

import pytest

from tests.ci import history, plan
from tests.plugins.suites import suites

SUITES = {
    "serving": {"touched_by": ["components/serving/*"]},
    "tuning": {"touched_by": ["components/tuning/*"]},
    "flink": {"touched_by": ["infra/flink/*"], "heavy": True},
    "containers": {"touched_by": ["Dockerfile"], "heavy": True},
    "gpu": {"touched_by": [], "device": "an NVIDIA GPU"},
}
MINUTES = {name: {"seconds": 240 / plan.AT_ONCE} for name in SUITES}


def names(choices):
    return [c.name for c in choices if c.runs]


def choose(changed, *, passed=MINUTES, since=None, measured=None):
    paths = dict.fromkeys(SUITES, changed)
    return plan.choose(SUITES, paths, passed, {**dict.fromkeys(SUITES, 5), **(since or {})}, measured or {})


def test_a_changed_file_runs_the_suites_that_it_affects_and_one_heavy_suite():
    assert names(choose(["components/serving/app.py"], since={"containers": 9})) == ["containers", "serving"]


def test_a_suites_own_test_runs_it():
    assert "tuning" in names(choose(["tests/tuning/test_tuning.py"]))


def test_what_all_tests_stand_on_runs_all_light_suites():
    assert {"serving", "tuning"} < set(names(choose(["tests/command.py"])))


def test_an_unknown_change_runs_all_light_suites():
    assert {"serving", "tuning"} < set(names(choose(None)))


def test_one_heavy_suite_runs_and_another_affected_one_is_reported_as_waiting():
    choices = {c.name: c for c in choose(["Dockerfile", "infra/flink/pom.xml"], since={"containers": 9})}
    assert choices["containers"].runs
    assert not choices["flink"].runs
    assert choices["flink"].why == "affected by the change, and another heavy suite is next"


def test_the_heavy_suite_in_turn_is_the_one_that_passed_longest_ago_or_never():
    assert names(choose([], since={"flink": 30})) == ["flink"]
    assert names(choose([], since={"flink": 30, "containers": None})) == ["containers"]


def test_suites_that_do_not_fit_into_45_minutes_are_skipped_with_the_reason():
    almost_all = {"seconds": (plan.BUDGET - plan.FIXED - 60) / plan.AT_ONCE}
    [serving] = [c for c in choose(None, passed={**MINUTES, "serving": almost_all}) if c.name == "serving"]
    assert not serving.runs
    assert "over the 45 minutes" in serving.why


def test_the_suite_that_passed_longest_ago_comes_first_where_not_all_fit():
    half = (plan.BUDGET - plan.FIXED) / plan.AT_ONCE / 2
    passed = {name: {"seconds": half} for name in SUITES}
    assert names(choose(None, passed=passed, since={"tuning": 40, "flink": 9})) == ["flink", "tuning"]


@pytest.mark.parametrize(
    ("record", "measured", "seconds"),
    [
        ({"passed": 20, "seconds": 300}, (20, 500.0), 300),
        ({"passed": 7, "seconds": 75}, (203, 340.0), 340),
        ({}, (64, 900.0), 900),
        ({"seconds": 781, "passed": 17}, (0, 0), 781),
        ({}, (0, 0), plan.UNKNOWN_SECONDS),
    ],
    ids=["recorded", "grown since", "landed without a record", "recorded only", "unknown"],
)
def test_a_suite_is_expected_to_take_its_recorded_seconds_unless_it_has_grown_since(record, measured, seconds):
    assert plan.expected_seconds(record, measured) == seconds


def test_a_suite_without_a_record_is_planned_with_the_durations_of_its_tests():
    [tuning] = [c for c in choose(["components/tuning/a.py"], passed={}, measured={"tuning": (5, 100.0)}) if c.name == "tuning"]
    assert tuning.seconds == 100 * plan.AT_ONCE


def test_what_a_suite_installs_first_is_part_of_its_time():
    suites = {"tpu": {"touched_by": [], "heavy": True, "prepare": 240}}
    [tpu] = plan.choose(suites, {"tpu": []}, {"tpu": {"seconds": 100}}, {"tpu": 1}, {})
    assert tpu.seconds == 240 + 100 * plan.AT_ONCE


def test_a_suite_that_runs_two_tests_at_once_itself_takes_all_of_its_seconds():
    suites = {"debian13": {"touched_by": [], "heavy": True, "both_cores": True}}
    [debian13] = plan.choose(suites, {"debian13": []}, {"debian13": {"seconds": 700}}, {"debian13": 1}, {})
    assert debian13.seconds == 700


def test_a_suite_that_never_fits_is_to_be_split():
    [serving] = [c for c in choose(None, passed={**MINUTES, "serving": {"seconds": 3 * 3600}}) if c.name == "serving"]
    assert (serving.runs, serving.why) == (False, "affected by the change, but too long for 45 minutes even alone; split it")


def test_a_required_device_is_given_as_the_reason():
    [gpu] = [c for c in choose([]) if c.name == "gpu"]
    assert (gpu.runs, gpu.why) == (False, "needs an NVIDIA GPU")


def test_every_suite_is_in_the_table_and_every_row_is_a_suite():
    assert set(plan.table()) == set(suites()) - {"unit"}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with 30 commits; returns their hashes, the first one first."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    for number in range(30):
        git("commit", "--quiet", "--allow-empty", "-m", str(number))
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(history, "REPOSITORY", tmp_path)
    monkeypatch.setattr(history, "FILE", tmp_path / "tests" / "last_passed.json")
    return git("rev-list", "--reverse", "HEAD").split()


def test_landings_are_counted_from_the_commit_at_which_a_suite_passed(repository):
    document = {"landings": [repository[i] for i in (20, 22, 24, 26, 28)], "suites": {}}
    assert history.landings_since(repository[23], document) == 3
    assert history.landings_since(repository[29], document) == 0


def test_a_suite_is_recorded_with_the_commit_at_which_it_passed(repository):
    said = history.record(["serving"], {"serving": {"passed": 3, "failed": 0}}, {"serving": 12.4})
    assert "serving" in said
    assert history.read()["suites"]["serving"] == {"commit": repository[-1], "passed": 3, "seconds": 12, "in_a_row": 1}


@pytest.mark.usefixtures("repository")
def test_passes_in_a_row_are_counted_from_the_last_failure():
    counts, seconds = {"serving": {"passed": 3}, "tuning": {"passed": 2, "failed": 1}}, {"serving": 12}
    for outcome in ("passed", "passed", "failed", "passed"):
        history.record(["serving"] * (outcome == "passed"), counts, seconds, ["serving"] * (outcome == "failed"))
    history.record(["serving"], counts, seconds, ["tuning"])
    assert history.read()["suites"]["serving"]["in_a_row"] == 2
    assert "tuning" not in history.read()["suites"], "it has no commit at which it passed"


def test_with_uncommitted_changes_nothing_is_recorded(repository, tmp_path):
    (tmp_path / "changed.py").write_text("x = 1\n")
    assert "uncommitted changes" in history.record(["serving"], {"serving": {"passed": 3}}, {"serving": 1})
    assert not history.FILE.exists()


def test_a_landing_records_the_suites_that_ci_ran_for_it(repository):
    history.write({"landings": [], "suites": {"serving": {"commit": repository[3], "passed": 3, "seconds": 12}}})
    history.land(passed=["serving", "flink"])
    history.land(passed=["tpu"])
    assert history.read() == {
        "landings": [repository[-1]],
        "suites": {
            "flink": {"commit": repository[-1]},
            "serving": {"commit": repository[-1], "passed": 3, "seconds": 12},
        },
    }


def test_a_suite_that_has_not_passed_for_ten_landings_is_overdue(repository):
    document = {"landings": repository[5:16], "suites": {"flink": {"commit": repository[14]}}}
    late = plan.overdue({"flink": {}, "serving": {}, "gpu": {"device": "an NVIDIA GPU"}}, document)
    assert late == {"serving": 10}


def test_a_suite_that_runs_now_is_not_overdue(repository):
    document = {"landings": repository[5:16], "suites": {}}
    assert plan.overdue({"flink": {}, "serving": {}}, document, runs={"flink"}) == {"serving": 10}


def test_the_commits_of_a_change_in_progress_are_no_landings(repository):
    document = {"landings": [repository[2]], "suites": {}}
    assert history.landings_since(repository[1], document) == 1
    assert history.landings_since(repository[3], document) == 0
    assert history.commits_under_way(document) == 27
