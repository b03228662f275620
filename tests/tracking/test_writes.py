"""Writes as plain data: to JSON and back, and what is no write."""

from __future__ import annotations

import json
import math

import pytest

from harness.base.errors import BadRequest
from harness.tracking.writes import (
    ContinueRun,
    CreateRun,
    DescribeRun,
    LogBatch,
    LogFiles,
    LogNetwork,
    ReconcileRuns,
    TerminateRun,
    Write,
    decoded,
    encoded,
)

WRITES: list[Write] = [
    CreateRun("key", "baseline", "*about*", "näme", {"harness.kind": "run", "base64": "x"}, 17),
    CreateRun("key", "baseline", "", "", {}, 17),
    DescribeRun("run", {"lr": "0.1", "text": "007"}, [{"name": "digits", "size": 3}]),
    DescribeRun("run", {}, []),
    LogBatch("run", {"train/loss": 0.1 + 0.2, "base64": 1.0, "huge": math.inf}, 3, 18, {}),
    LogFiles("run", {"figures/a.png": bytes(range(256)), "base64": b"", "ä.txt": b"text"}),
    LogNetwork(
        "run",
        b"\x00\xff",
        "2.13.0",
        [[[[0.5]]], [[[0.25]]]],
        "float32",
        True,
        [10],
        "float32",
        list("0123456789"),
        2,
    ),
    ContinueRun("run", "owner", {"harness.allowed_changes": "data"}),
    TerminateRun("run", "FINISHED", 19),
    ReconcileRuns("parent", {"child": "completed", "other": "running"}, 20),
]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_read_back_as_it_was(write: Write) -> None:
    assert decoded(encoded(write)) == write


def test_what_is_not_a_number_is_read_back() -> None:
    again = decoded(encoded(LogBatch("run", {"loss": math.nan}, 1, 2, {})))
    assert isinstance(again, LogBatch)
    assert math.isnan(again.metrics["loss"])


WHOLE = encoded(TerminateRun("run", "FINISHED", 19))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:-5],
        b"\xff" + WHOLE,
        b"[]",
        b'"text"',
        b'{"write": "TerminateRun"}',
        WHOLE.replace(b"}", b', "more": 1}'),
        WHOLE.replace(b"TerminateRun", b"DeleteRun"),
        WHOLE.replace(b'"TerminateRun"', b"[]"),
        b'{"write": "LogFiles", "run_id": "run", "files": {"a": {"base64": "no base64!"}}}',
        json.dumps({"method": "end", "run_id": "run", "arguments": {}}).encode(),
        b"[" * 100_000,
    ],
)
def test_anything_else_is_not_a_write(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a write to a store"):
        decoded(content)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "..", "C:a", "..\\a", "\\a"])
def test_files_of_a_run_stay_with_it(name: str) -> None:
    content = encoded(LogFiles("run", {"inside": b""})).replace(
        b"inside", json.dumps(name).strip('"').encode()
    )
    with pytest.raises(BadRequest, match="would lie outside of the run"):
        LogFiles("run", {name: b""})
    with pytest.raises(BadRequest, match="would lie outside of the run"):
        decoded(content)
