"""Names a pipeline's MLflow run by what differs from the last one. Imports no config: commands that list runs use it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking

_log = logging.getLogger(__name__)
_MOST_CHANGES, _VALUE_LENGTH = 3, 24
_FOLDERS = re.compile(r"""[^\s"',\[\]{}]*/(?=[^\s"',\[\]{}])""")
# Characters of a parameter that `tracking.Run.params` stores.
_STORED = 6000
# In the record's name.
_NAMED = ("trainer", "trainer.framework")
# Of MLflow's column; a longer name is an error in PostgreSQL and MySQL.
_LENGTH = 250
# A key without a value: a version that does not have the key differs in nothing.
_UNSET = "null"


def run_name(uri: str, experiment_id: str, record: Mapping[str, Any], own: str | None = None) -> str:
    """Returns the name of a run: the record's, and what differs from the pipeline's last run.

    Args:
        uri: tracking server or database.
        experiment_id: id of the run's experiment.
        record: a `RunRecord` as a mapping.
        own: id of the run to name, if it exists.
    """
    name, params = str(record["name"]), {k: mask(str(v))[:_STORED] for k, v in record["params"].items() if k not in _NAMED}
    where = f"tags.`switchyard.pipeline` = '{record['tags']['switchyard.pipeline']}' AND tags.`switchyard.trainer` LIKE '%'"
    try:
        newest = tracking.client(uri).search_runs([experiment_id], where, order_by=["attributes.start_time DESC"], max_results=2)
    except Exception as error:  # MLflow's stores raise many types of errors
        _log.warning("MLflow at %s: %s", mask(uri), mask(str(error)))
        return name
    found = [r for r in newest if r.info.run_id != own]
    if not found:
        return name
    before = found[0].data.params
    changed = [f"{_short(k)} {_short_value(v)}" for k, v in params.items() if k in before and before[k] != v]
    if "name" in before:  # a run of an earlier version has no settings
        changed += [f"{_short(k)} {_short_value(v)}" for k, v in params.items() if k not in before and v != _UNSET]
        changed += [f"without {_short(k)}" for k in before if k not in params and k not in _NAMED and before[k] != _UNSET]
    if not changed:
        return name
    more = f" and {len(changed) - _MOST_CHANGES} more" if len(changed) > _MOST_CHANGES else ""
    named = f"{name}: {', '.join(changed[:_MOST_CHANGES])}{more}"
    return named if len(named) <= _LENGTH else f"{named[: _LENGTH - 1]}…"


def _short(key: str) -> str:
    return ".".join(key.split(".")[-2:])


def _short_value(value: str) -> str:
    if len(value) > _VALUE_LENGTH:
        value = _FOLDERS.sub("", value)  # two files of one folder differ in their ends
    return value if len(value) <= _VALUE_LENGTH else f"{value[: _VALUE_LENGTH - 1]}…"
