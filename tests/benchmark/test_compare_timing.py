"""The runs that the benchmark of compare makes up look like recorded ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.rows import rows_of
from harness.benchmark import compare_timing
from harness.tracking.reader import open_reader


@pytest.mark.processes
def test_copies_of_a_run_differ_by_rate_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mlflow.db"
    environment = compare_timing._recorded(database, 12, 3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
    runs = open_reader().runs()
    assert len({run.run_id[:8] for run in runs}) == len(runs) == 12
    assert {run.num_epochs for run in runs} == {3}
    rows = sorted(rows_of(runs), key=lambda row: row.values["params.lr"])
    assert [(row.values["params.lr"], row.record["seeds"]) for row in rows] == [
        (0.1, "0 1 2 3 4"),
        (0.101, "0 1 2 3 4"),
        (0.102, "0 1"),
    ]
    assert all(run.fields.items() <= run.parameters.items() for run in runs)
