"""A column of numbers with a few texts in it is never quietly text: the run stops and says which key decides."""

import pandas as pd
import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import STRING
from switchyard.components.ingest.scan import scan
from tests.ingest_inputs import input_spec

pytestmark = pytest.mark.core
NUMBERS = [f"{i}.{i % 10}5" for i in range(100, 300)]


def written(tmp_path, values, ending="csv"):
    table = pd.DataFrame({"income": values, "b": range(len(values)), "y": [i % 2 for i in range(len(values))]})
    path = tmp_path / f"d.{ending}"
    if ending == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        {"csv": pd.DataFrame.to_csv, "parquet": pd.DataFrame.to_parquet}[ending](table, path, index=False)
    return path


def scanned(path, *, peek=False, **settings):
    return scan(input_spec(path, **settings), BadRows(settings.get("max_bad_rows", 0)), peek=peek)


def refusal(path, **settings):
    with pytest.raises(UserError) as refused:
        scanned(path, **settings)
    return str(refused.value)


@pytest.mark.parametrize("peek", [True, False])
def test_a_dash_is_named_with_its_rows_and_the_key(peek, tmp_path):
    message = refusal(written(tmp_path, [*NUMBERS[:-3], "-", "-", "-"]), peek=peek)
    assert "income: 197 of 200 values are numbers; '-' (3 rows) is not: data.missing_values: ['-'];" in message
    assert "data.columns: {income: {type: text}} keeps the column as text" in message


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_numbers_stored_as_text_in_other_formats_are_treated_alike(ending, tmp_path):
    message = refusal(written(tmp_path, [*NUMBERS[:-3], "-", "-", "-"], ending))
    assert "197 of 200 values are numbers; '-' (3 rows) is not: data.missing_values: ['-'] and" in message
    assert "data.columns: {income: {type: number}}" in message


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_the_suggested_keys_make_the_column_numeric(ending, tmp_path):
    columns = {} if ending == "csv" else {"income": "number"}
    found = scanned(written(tmp_path, [*NUMBERS, "-"], ending), missing_values=["-"], columns=columns)
    assert found.types["income"].kind == "float"


@pytest.mark.parametrize(
    ("odd", "advice"),
    [
        (["1,316.37"] * 3, "data.csv: {thousands: ','}"),
        (["3,5", "1,316"], "data.csv: {decimal: ','}"),
        (["1.316,5", "3,5"], "data.csv: {decimal: ',', thousands: '.'}"),
        (["1 316.5"], "data.csv: {thousands: ' '}"),
        (["1'316.5"], 'data.csv: {thousands: "\'"}'),
        (["12%", "5.5 %"], "remove the % from the data"),
        (["$5", "-€1,316.37", "7 EUR"], "remove the currency from the data"),
        (["(5.00)", "5-", "\u22125"], "write the minus as - in front"),
        (["12a"], "fix the values that are not numbers"),
        (["?", "unknown"], "data.missing_values: ['?', unknown]"),
        (["-", "1,316.37"], "data.missing_values: ['-'] and data.csv: {thousands: ','}"),
    ],
    ids=str,
)
def test_each_kind_of_malformed_number_has_its_advice(odd, advice, tmp_path):
    assert advice in refusal(written(tmp_path, [*NUMBERS, *odd]))


@pytest.mark.parametrize("odd", [["12%"] * 20, ["$5", "$1,300.50"], ["3,5", "4,25"], ["1,316.37", "12.5"]], ids=str)
def test_a_column_of_only_malformed_numbers_is_not_text(odd, tmp_path):
    assert "income: " in refusal(written(tmp_path, odd * 20))


def test_many_missing_value_words_do_not_turn_numbers_into_text(tmp_path):
    assert "data.missing_values: ['-']" in refusal(written(tmp_path, ["12.5", "7.5", "-", "-", "-"] * 20))


@pytest.mark.parametrize(
    "values", [["Ulm", "Bonn"], ["12a", "A4"], ["1.2.3", "1.2.4"], ["2024-01-31", "x"], ["5", "five"]], ids=str
)
def test_a_column_of_text_stays_text(values, tmp_path):
    assert scanned(written(tmp_path, values * 20)).types["income"].kind == STRING


def test_integers_as_text_are_ids_and_reported(tmp_path):
    found = scanned(written(tmp_path, [str(i) for i in range(100)], "parquet"))
    assert found.types["income"].kind == STRING
    assert found.notes == [
        "income: all 100 values are integers stored as text, and stay text; "
        "data.columns: {income: {type: number}} reads them as numbers"
    ]


def test_a_text_column_with_many_numbers_is_reported(tmp_path):
    [note] = scanned(written(tmp_path, ["5", "5", "five"] * 20)).notes
    assert note.startswith("income: 40 of 60 values are numbers; 'five' (20 rows) is not, so the column is text")


def test_numbers_with_a_unit_are_reported(tmp_path):
    [note] = scanned(written(tmp_path, [f"{i}.5 kg" for i in range(50)])).notes
    assert note == "income: the values are numbers followed by 'kg', so the column is text; remove the unit from the data"


def test_codes_that_are_read_as_numbers_are_reported(tmp_path):
    found = scanned(written(tmp_path, ["01067", "50667", "04109"] * 20))
    assert found.types["income"].kind == "integer"
    assert found.notes == [
        "income: 40 of 60 values start with 0, and all are read as numbers; "
        "data.columns: {income: {type: text}} keeps them as they are"
    ]


def test_fractions_as_text_are_not_silently_text(tmp_path):
    assert "income: 200 of 200 values are numbers, stored as text: data.columns: {income: {type: number}}" in refusal(
        written(tmp_path, NUMBERS, "parquet")
    )


def test_a_column_that_is_declared_text_stays_text(tmp_path):
    found = scanned(written(tmp_path, [*NUMBERS, "-"]), columns={"income": "text"})
    assert found.types["income"].kind == STRING


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_value_that_is_not_of_the_declared_type_is_a_bad_row(ending, tmp_path):
    path = written(tmp_path, [*NUMBERS, "n.n.", "NA"], ending)
    message = refusal(path, columns={"income": "number"})
    assert "row 200: column 'income' is declared a number: 'n.n.'" in message
    found = scanned(path, columns={"income": "number"}, max_bad_rows=1)
    assert (found.types["income"].kind, found.rows) == ("float", 201)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"incme": "number"}}, "data.columns: unknown column 'incme'. Did you mean 'income'?"),
        ({"columns": {"b": "number"}, "exclude": ["b"]}, "data.columns: 'b' is excluded by data.exclude"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(settings, message, tmp_path):
    assert message in refusal(written(tmp_path, NUMBERS), **settings)


def test_a_label_of_numbers_with_a_dash_is_no_class_of_its_own(tmp_path):
    table = pd.DataFrame({"x": range(200), "y": [*([0, 1] * 99), "-", "-"]})
    table.to_csv(tmp_path / "d.csv", index=False)
    assert "y: 198 of 200 values are numbers; '-' (2 rows) is not" in refusal(tmp_path / "d.csv")


@pytest.mark.parametrize("odd", ["-", "never", "0000-00-00", "2023-02-29"])
def test_a_text_among_dates_is_reported_with_the_key_that_makes_them_dates(odd, tmp_path):
    path = written(tmp_path, [*(f"2024-01-{1 + i % 28:02d}" for i in range(197)), odd, odd, odd])
    [note] = [n for n in scanned(path).notes if n.startswith("income:")]
    assert note.startswith(f"income: 197 of 200 values are dates; {odd!r} (3 rows) is not, so the column is text")
    assert scanned(path, missing_values=[odd]).types["income"].meaning == "timestamp[s]"


def test_a_long_text_among_dates_is_reported_shortened(tmp_path):
    path = written(tmp_path, [*(f"2024-01-{1 + i % 28:02d}" for i in range(199)), "x" * 70_000])
    [note] = [n for n in scanned(path).notes if n.startswith("income:")]
    assert note.endswith("(1 row) is not, so the column is text")
    assert len(note) < 500
