"""The trials of a study as a table."""

from __future__ import annotations

from typing import Any

from harness.base.formatting import csv_text
from harness.search.storage import StoredStudy, load_stored


def trial_rows(url: str, study_name: str) -> list[dict[str, Any]]:
    """The trials of a study in a storage; see `rows`."""
    return rows(load_stored(url, study_name))


def rows(stored: StoredStudy) -> list[dict[str, Any]]:
    """Every trial by number: its outcome, value, parameters, and where its seconds went.

    `training_seconds` is the part of `seconds` in which epochs were trained and evaluated. A
    diverged trial has the value 0; an interrupted one is there again under a later number.
    """
    return [
        {
            "number": trial.number,
            "outcome": trial.user_attrs.get("outcome", trial.state.name.lower()),
            "value": trial.value,
            "params": trial.params,
            "num_epochs": trial.last_step or 0,
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            **{
                name: trial.user_attrs.get(name)
                for name in ("training_seconds", "reason", "retry_of", "run_id", "owner")
            },
        }
        for trial in stored.get_trials(deepcopy=False)
    ]


def trials_csv(stored: StoredStudy) -> str:
    """`rows` as CSV, a column for each parameter."""
    table = rows(stored)
    parameters = list(dict.fromkeys(name for row in table for name in row["params"]))
    columns = [name for name in table[0] if name not in ("params", "owner")] if table else []
    columns[3:3] = parameters
    cells = ({**row["params"], **row} for row in table)
    return csv_text(columns, ([row.get(name, "") for name in columns] for row in cells))
