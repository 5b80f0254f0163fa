"""What a pipeline without a YAML is called: two data sets never meet under one name."""

import pytest

from switchyard.pipelines.config.data_name import name_of
from switchyard.pipelines.config.load import load_config


@pytest.mark.parametrize(
    ("path", "name"),
    {
        "rides.csv": "rides",
        "Big Tips.csv": "big_tips",
        "churn/*.csv": "churn",
        "churn/data/*.csv": "churn_data",
        "fraud/part-*.csv": "fraud_part",
        "x/2024-*.parquet": "x_2024",
        "a/**/*.csv": "a",
        "churn/data/train.csv": "churn_data_train",
        "churn/train.csv": "churn_train",
        "gs://bucket/clicks/*.parquet": "clicks",
        "s3://bucket/*.csv": "bucket",
        "/2024/rides.csv.gz": "rides",
        "/x/2024-01.csv": "data_2024_01",
        "Größe.csv": "grosse",
    }.items(),
)
def test_the_name_comes_from_the_file_the_folder_or_the_pattern(path, name):
    assert name_of([path]) == name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/*.csv", "b/*.csv"),
        ("a/data.csv", "b/data.csv"),
        ("x/2023-*.csv", "x/2024-*.csv"),
        ("a/part-*", "b/part-*"),
        ("x/日本.csv", "x/中国.csv"),
    ],
)
def test_two_data_sets_have_two_names(one, other):
    assert name_of([one]) != name_of([other])


@pytest.mark.parametrize("path", ["*", "x" * 200 + ".csv", "1" * 100, "/*.csv", "日本/*.csv", "[v1]/?.csv", ".csv", "__.csv"])
def test_every_name_is_a_valid_pipeline_name(path):
    assert load_config(None, document={"name": name_of([path]), "data": {"path": "d.csv"}, "label": "y"}).name


def test_a_folder_with_brackets_is_named_by_its_words(tmp_path, monkeypatch):
    (tmp_path / "[v1] sales").mkdir()
    monkeypatch.chdir(tmp_path)
    assert name_of(["[v1] sales/*.csv"]) == "v1_sales"
