"""Runs as a reader returns them, made up."""

from __future__ import annotations

import json
from typing import Any

from harness.tracking.reader import DatabaseReader
from harness.tracking.schema import StoredRun


class NoArtifacts(DatabaseReader):
    """A store without a file."""

    def __init__(self) -> None:
        pass

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """Nothing."""
        return None


def made_up_run(
    number: int,
    seed: int | None = 0,
    accuracy: float | None = 0.9,
    *,
    parent: str | None = None,
    parameters: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
    run_id: str = "",
) -> StoredRun:
    """A completed run of the baseline on digits; a higher number is a later one.

    Args:
        parameters: others than lr=0.1.
        tags: of the harness, without their prefix.
    """
    typed = {"dataset": "digits", "lr": 0.1, "seed": seed} | (parameters or {})
    own = {
        "kind": "run",
        "experiment": "baseline",
        "outcome": "completed",
        "device": "cpu",
        "device_name": "a processor",
        "threads": "1",
        "git_commit": "c0ffee",
        "experiment_sha256": "f" * 64,
        "data.training_sha256": "a" * 64,
        "data.test_sha256": "b" * 64,
        "metrics": json.dumps({"accuracy": "max", "loss": "min"}),
        "parameters": json.dumps(typed),
    } | (tags or {})
    known = {} if accuracy is None else {"test/accuracy": accuracy, "test/loss": 1 - accuracy}
    return StoredRun(
        run_id or f"{number:032x}",
        f"baseline lr=0.1 seed={seed}",
        "baseline",
        1_767_225_600_000 + 1000 * number,
        None,
        {f"harness.{name}": text for name, text in own.items()}
        | ({"mlflow.parentRunId": parent} if parent else {}),
        {name: str(value) for name, value in typed.items()},
        known | {"time/total_seconds": 1.0 + number},
        known,
        2,
    )
