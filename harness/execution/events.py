"""What happens to a training, as plain data: the same from this process, a worker or a machine.

A training begins, has epochs, may be inspected, and ends: one `Begun`, any number of
`EpochResult`, at most one `Inspection`, one `Ending`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.base.inspection import Inspection
from harness.tracking.schema import DataRecord, ModelRecord, Outcome
from harness.training.loop import EpochResult


@dataclass(frozen=True)
class Begun:
    """A training is about to train its first epoch.

    Attributes:
        machine: where it runs, by tag name; see `harness.training.device.describe`.
        data: the sets of examples that it sees.
        restored: the epochs that it goes on from.
        metrics: what is known of the whole training before it begins: `model/parameters`.
    """

    machine: dict[str, str]
    data: tuple[DataRecord, ...]
    restored: tuple[EpochResult, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """A training is over.

    Attributes:
        reason: what went wrong; empty if nothing did.
        trace: the frames of the error behind it.
        is_lost: whether its process died, so that it may be tried again.
        is_blameless: whether something outside of the training ended it, such as a full disk.
        weights_sha256: digest of the final weights; see `Training.weights_digest`.
        model: the exported network, if the task asked for it.
        weights: its parameters and buffers, as the content of a file; empty without a model.
        examples: the results on single evaluation examples, by metric such as `test/accuracy`, as
            `ExampleResults.encode` returns them; empty unless the task asked for them.
        never_begun: of a training that failed, where it ran and which examples it would have seen,
            in case that it had not begun.
        incomplete: which figures or model are missing that the task asked for, and why.
        metrics: of the whole training: seconds of the export, peak memory.
    """

    outcome: Outcome
    reason: str = ""
    trace: str = ""
    is_lost: bool = False
    is_blameless: bool = False
    weights_sha256: str = ""
    model: ModelRecord | None = None
    weights: bytes = b""
    examples: dict[str, bytes] = field(default_factory=dict)
    never_begun: Begun | None = None
    incomplete: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


Event = Begun | EpochResult | Inspection | Ending
