"""Options of `switchyard submit` as the command line parses them."""

import click
import pytest

from switchyard.pipelines.commands import submit


@pytest.mark.parametrize(("given", "seconds"), [("600", 600.0), ("1.5", 1.5), ("90s", 90.0), ("10m", 600.0), ("2h", 7200.0)])
def test_stuck_is_a_duration_or_a_number_of_seconds(given, seconds):
    context = submit.command.make_context("submit", ["pipeline.yaml", "--stuck", given], resilient_parsing=True)
    assert context.params["stuck"] == seconds


@pytest.mark.parametrize("given", ["0s", "0.5", "10 minutes", "-1m"])
def test_a_stuck_that_is_no_duration_is_refused(given):
    option = next(p for p in submit.command.params if p.name == "stuck")
    with pytest.raises(click.BadParameter):
        option.type.convert(given, option, None)
