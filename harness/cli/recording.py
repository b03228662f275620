"""The recorder of a command that trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import closing

from harness.cli.flags import refuse_repeated_flags
from harness.tracking import store_address
from harness.tracking.recorder_process import RecorderProcess


@contextlib.contextmanager
def recorder_process() -> Iterator[RecorderProcess]:
    """A recorder for the block. It imports MLflow while this process imports torch.

    Raises:
        BadRequest: MLFLOW_TRACKING_URI cannot name a store.
    """
    store_address.check_address()
    with closing(RecorderProcess()) as recorder:
        yield recorder


@contextlib.contextmanager
def optional_recorder(arguments: Sequence[str]) -> Iterator[RecorderProcess | None]:
    """A recorder for the block; None if the flags ask for help or a dry run.

    Raises:
        BadRequest: a flag is given twice, or MLFLOW_TRACKING_URI cannot name a store.
    """
    refuse_repeated_flags(arguments)
    if {"-h", "--help", "--dry-run"} & set(arguments):
        store_address.check_address()
        yield None
        return
    with recorder_process() as recorder:
        yield recorder
