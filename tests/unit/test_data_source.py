"""The data set that a champion was trained on."""

from switchyard.components.baseline.contents import BaselineContents
from switchyard.components.data import source as data_source


def test_a_version_trained_on_other_patterns_is_named_with_them():
    tags = data_source.tags_of(["/d/fraud/*.csv", "/d/more.csv"])
    assert data_source.another(tags, ["/d/churn/*.csv"]) == "/d/fraud/*.csv, /d/more.csv"


def test_data_sets_with_a_common_pattern_are_the_same():
    tags = data_source.tags_of(["/d/2024.csv"])
    assert data_source.another(tags, ["/d/2024.csv", "/d/2025.csv"]) == ""


def test_a_version_without_a_recorded_data_set_is_not_mentioned():
    assert data_source.another({}, ["/d/churn/*.csv"]) == ""
    assert data_source.another({data_source.TAG: "edited by hand"}, ["/d/churn/*.csv"]) == ""


def test_many_patterns_are_counted_and_too_many_are_not_recorded():
    tags = data_source.tags_of([f"/d/{i}.csv" for i in range(5)])
    assert data_source.another(tags, ["/e.csv"]) == "/d/0.csv, /d/1.csv, /d/2.csv and 2 more"
    assert data_source.tags_of(["/d/" + "x" * 5000]) == {}


def test_the_line_names_the_champion_and_its_data():
    contents = BaselineContents("3", "pytorch", "", None, "", trained_on="/d/fraud/*.csv")
    assert contents.origin == "champion version 3 was trained on another data set, /d/fraud/*.csv"
    assert BaselineContents("3", "pytorch", "", None, "").origin == ""
