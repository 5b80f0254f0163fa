"""Options of `switchyard submit` as the command line parses them."""

import click
import pytest

from switchyard.pipelines.commands import submit


@pytest.mark.parametrize(("given", "seconds"), [("600", 600.0), ("1.5", 1.5), ("90s", 90.0), ("10m", 600.0), ("2h", 7200.0)])
def test_stuck_is_a_duration_or_a_number_of_seconds(given, seconds):
    context = submit.command.make_context("submit", ["pipeline.yaml", "--stuck", given], resilient_parsing=True)
    assert context.params["stuck"] == seconds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0s", "'0s' is no duration"),
        ("0.5", "0.5 is not in the range x>=1"),
        ("10 minutes", "'10 minutes' is no duration; give 90s, 10m, 1h, or a number of seconds"),
        ("-1m", "'-1m' is no duration; give 90s"),
    ],
)
def test_a_stuck_that_is_no_duration_is_refused_with_the_allowed_values(given, said):
    option = next(p for p in submit.command.params if p.name == "stuck")
    with pytest.raises(click.BadParameter, match=said):
        option.type.convert(given, option, None)
