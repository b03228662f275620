"""Writes to a store as plain data: the recorder makes them, `harness.tracking.writer` does them.

`encoded` and `decoded` turn a write into JSON and back, for the time that a server is away.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias, get_args

from harness.base.errors import BadRequest


@dataclass(frozen=True)
class CreateRun:
    """Create a run.

    Attributes:
        key: Identifies the run if the write is repeated; "" if it never is. It serves as the run's
            id until the store has given one.
        about: The experiment's description in Markdown, if this run is its first.
        start_time: Milliseconds since 1970, like all times here.
    """

    key: str
    experiment: str
    about: str
    name: str
    tags: dict[str, str]
    start_time: int


@dataclass(frozen=True)
class DescribeRun:
    """Record a run's parameters and the data it sees.

    Attributes:
        inputs: The fields of a `DataRecord` each.
    """

    run_id: str
    parameters: dict[str, str]
    inputs: list[dict[str, Any]]


@dataclass(frozen=True)
class LogBatch:
    """Record metrics of one step, and tags."""

    run_id: str
    metrics: dict[str, float]
    step: int
    timestamp: int
    tags: dict[str, str]


@dataclass(frozen=True)
class LogFiles:
    """Keep files with a run, by their path among its artifacts."""

    run_id: str
    files: dict[str, bytes]

    def __post_init__(self) -> None:
        for name in self.files:
            for path in (PurePosixPath(name), PureWindowsPath(name)):
                if path.anchor or ".." in path.parts:
                    raise BadRequest(f"artifact: {name!r} would lie outside of the run.")


@dataclass(frozen=True)
class LogNetwork:
    """Log a run's network; the fields are those of a `ModelRecord`."""

    run_id: str
    content: bytes
    torch_version: str
    example: list[Any]
    input_type: str
    is_scaled: bool
    output_shape: Sequence[int]
    output_type: str
    classes: Sequence[str] | None
    step: int
    is_averaged: bool = False


@dataclass(frozen=True)
class ContinueRun:
    """Set a run that has ended to running, owned by another process."""

    run_id: str
    owner: str
    tags: dict[str, str]


@dataclass(frozen=True)
class TerminateRun:
    """End a run with MLflow's status."""

    run_id: str
    status: str
    end_time: int


@dataclass(frozen=True)
class ReconcileRuns:
    """Set the outcomes of a run's children; see `harness.tracking.messages.ReconcileChildren`."""

    parent: str
    outcomes: dict[str, str]
    end_time: int


Write: TypeAlias = (
    CreateRun
    | DescribeRun
    | LogBatch
    | LogFiles
    | LogNetwork
    | ContinueRun
    | TerminateRun
    | ReconcileRuns
)

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Write)}


def encoded(write: Write) -> bytes:
    """The write as JSON, with bytes in base64."""
    fields = {field.name: getattr(write, field.name) for field in dataclasses.fields(write)}
    return json.dumps({"write": type(write).__name__, **fields}, default=_text_of_bytes).encode()


def decoded(content: bytes) -> Write:
    """The write that `encoded` has turned into JSON.

    Raises:
        ValueError: The content is damaged, or not a write.
    """
    try:
        fields = json.loads(content, object_hook=_bytes_of_text)
        write: Write = _KINDS[fields.pop("write")](**fields)
    except BadRequest:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a write to a store ({type(error).__name__}: {error})") from None
    return write


def _text_of_bytes(value: Any) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"{value!r} cannot be written as JSON")
    return {"base64": base64.b64encode(value).decode()}


def _bytes_of_text(value: dict[str, Any]) -> Any:
    match value:
        case {"base64": str(text), **others} if not others:
            return base64.b64decode(text, validate=True)
    return value
