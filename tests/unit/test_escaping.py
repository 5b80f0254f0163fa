"""Names of folders, files and models inside of URLs, patterns and filters."""

import glob

import pytest

from switchyard.components.text.escaping import equals, pattern_of, sqlite_file, sqlite_uri
from switchyard.components.text.redaction import mask, take_credentials

AWKWARD = [
    "plain",
    "with space",
    "[v1]",
    "a%20b",
    "a?b",
    "#1",
    "a@b",
    "it's",
    'a "b"',
    "é ü ß",
    "a*b",
    "a;b&c=d",
    "%",
    "50%25",
    "a+b",
    "~x",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_the_url_of_a_database_names_its_file(tmp_path, name):
    file = tmp_path / name / "mlflow.db"
    assert sqlite_file(sqlite_uri(file)) == file


def test_the_url_of_a_plain_file_has_the_usual_form(tmp_path):
    assert sqlite_uri(tmp_path / "a b" / "mlflow.db") == f"sqlite:///{tmp_path}/a b/mlflow.db"


@pytest.mark.parametrize("uri", ["http://x/sqlite", "postgresql://h/d", "sqlite://", "sqlite:///:memory:"])
def test_a_url_of_a_server_has_no_file(uri):
    assert sqlite_file(uri) is None


@pytest.mark.parametrize("name", AWKWARD)
def test_a_glob_below_a_folder_finds_the_files_of_that_folder(tmp_path, name):
    for folder in (name, "v", "1", "ab", "axb"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "d1.csv").touch()
    assert glob.glob(pattern_of(str(tmp_path / name / "d*.csv"))) == [str(tmp_path / name / "d1.csv")]


def test_a_missing_file_is_not_found_in_a_folder_that_its_name_matches_as_a_pattern(tmp_path):
    for folder in ("[v1]", "v"):
        (tmp_path / folder).mkdir()
    (tmp_path / "v" / "d.csv").touch()
    assert glob.glob(pattern_of(str(tmp_path / "[v1]" / "d.csv"))) == []


def test_a_pattern_of_folders_stays_a_pattern(tmp_path):
    for folder in ("v1", "v2", "v3"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "d.csv").touch()
    assert len(glob.glob(pattern_of(str(tmp_path / "v[12]" / "d.csv")))) == 2


@pytest.mark.parametrize("pattern", ["gs://bucket/[v1]/*.csv", "*.csv", "./none/*.csv", "/none/x?.csv"])
def test_a_path_that_does_not_exist_is_unchanged(pattern):
    assert pattern_of(pattern) == pattern


@pytest.mark.parametrize("value", ["it's", 'a "b"', "c:\\d", """both ' and " """])
def test_a_filter_never_ends_within_its_value(value):
    found = equals("name", value)
    assert found.startswith("name LIKE '")
    assert found.count("'") == 2
    assert '"' not in found
    assert "\\" not in found


def test_an_at_in_a_databases_folder_is_no_password():
    take_credentials("sqlite:////somewhere/of me@work/mlflow.db")
    assert mask("/somewhere/of me/x") == "/somewhere/of me/x"
