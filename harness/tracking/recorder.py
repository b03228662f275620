"""The recorder: writes runs to MLflow, synchronously, by their ids and without global state."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import time
import uuid
import warnings
from collections.abc import Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from harness.base import provenance, sqlite
from harness.base.command_line import command_text
from harness.base.errors import RecordLost, RunFailed
from harness.base.machine import peak_memory
from harness.base.outside_code import OutsideCode
from harness.base.ownership import HEARTBEAT_SECONDS, Owner
from harness.base.privacy import mask, masked_value
from harness.figures import run_figures, style
from harness.tracking import store_address
from harness.tracking.messages import (
    DrawFigures,
    EndRun,
    LogEpoch,
    LogModel,
    Message,
    OpenStore,
    ReconcileChildren,
    Recovered,
    RecoverRuns,
    ReopenRun,
    Reply,
    SaveArtifacts,
    SendWaiting,
    StartRun,
)
from harness.tracking.offline_queue import OfflineQueue
from harness.tracking.schema import (
    CHANGES,
    OUTSIDE,
    SOURCE_FILE,
    FiguresRecord,
    ModelRecord,
    RunRecord,
)
from harness.tracking.store import Store
from harness.tracking.writer import NOTE, STATUS, ServerAway, Writer, answered
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
)

NOT_FOUND = re.compile(r"Run with id=\w+ not found")
"""What MLflow says of a run that was deleted for good."""

DIED = {"reason": "its process died"}
"""Tags of a run whose process could not say how it ended."""


class MlflowRecorder:
    """Records runs in the store, in this process; see `harness.tracking.messages.Recorder`.

    If a tracking server is away, what it should have recorded waits on disk; see
    `harness.tracking.offline_queue`.
    """

    def __init__(self) -> None:
        """Make a recorder that opens the store at the first message."""
        self._store: Store | None = None
        self._queue: OfflineQueue | None = None
        self._source: provenance.SourceState | None = None
        self._open_runs: dict[str, str] = {}
        """Their kinds; empty for one that was continued."""
        self._given_up: set[str] = set()
        self._monitors: dict[str, Any] = {}
        self._last_beat = time.monotonic()

    def send(self, message: Message[Reply]) -> Reply:
        """Carry out a message and return its answer; see `Recorder`."""
        reply: Reply = self._handle(message)
        return reply

    def post(self, message: Message[Any]) -> None:
        """Carry out a message; in this process, it is done at once."""
        self._handle(message)

    def wait(self) -> None:
        """Return at once: in this process, nothing is left to wait for."""

    def close(self) -> None:
        """End the runs that are still open as interrupted, and try to send what waits.

        To be called after the process that sent the messages has ended, maybe before it could end
        its runs. Another process may have closed them by now.
        """
        for run_id in list(self._open_runs):
            try:
                with answered():
                    is_running = self.store.state(store_address.stored_id(run_id)).is_running
            except ServerAway:
                is_running = True
            except MlflowException:  # it has been deleted
                continue
            if is_running:
                # A full disk may refuse this. The next command will write it.
                with contextlib.suppress(MlflowException, RunFailed, OSError):
                    self._end(EndRun(run_id, "interrupted", tags=DIED))
        if self._queue:
            self._queue.send(at_once=True)

    @property
    def store(self) -> Store:
        """The store, opened at its first use."""
        if self._store is None:
            self._store = Store()
            self._queue = OfflineQueue(self._store) if self._store.is_remote else None
        return self._store

    @property
    def waiting(self) -> int:
        """How many writes of this recorder the server has not taken yet."""
        return self._queue.waiting if self._queue else 0

    def look_after(self) -> None:
        """What is due beside the messages: heartbeats, and what waits for the server."""
        if self._queue:
            self._queue.send()
        if time.monotonic() - self._last_beat < HEARTBEAT_SECONDS:
            return
        self._last_beat = time.monotonic()
        for run_id in () if self.waiting else self._open_runs:
            # It says that a run lives, and must not end it. A server that is away is found by
            # what is to be recorded.
            with contextlib.suppress(MlflowException, ServerAway, RunFailed), answered():
                self.store.check_is_there()
                now = str(time.time())
                self.store.client.set_tag(store_address.stored_id(run_id), "harness.heartbeat", now)

    def _handle(self, message: Message[Any]) -> Any:
        """Carry out a message and return its answer, whose type is the message's."""
        match message:
            case OpenStore():
                store_address.check_may_be_written()
                self._recover()
                self._source = provenance.source()
                return self._source.sentence()
            case StartRun(record):
                return self._start(record)
            case ReopenRun():
                self._reopen(message)
            case LogEpoch(run_id, epoch, metrics):
                self._log(run_id, epoch, metrics)
            case SaveArtifacts(run_id, files):
                self._write(LogFiles(run_id, files))
            case DrawFigures(run_id, record):
                self._draw(run_id, record)
            case LogModel(run_id, model):
                return self._log_model(run_id, model)
            case EndRun():
                self._end(message)
            case ReconcileChildren(parent, outcomes):
                self._write(ReconcileRuns(parent, outcomes, _now()))
            case RecoverRuns():
                return self._recover()
            case SendWaiting():
                if self._queue:
                    self._queue.send(at_once=True)
                return self.waiting
            case _:
                raise TypeError(f"the recorder does not know the message {message!r}")
        return None

    def _write(self, write: Write) -> str | None:
        store_address.check_may_be_written()
        store = self.store
        try:
            store.check_is_there()
        except RecordLost:
            self._open_runs.clear()
            raise
        run_id = getattr(write, "run_id", "")
        if run_id in self._given_up:
            return None
        if self._queue:
            return self._queue.write(write)
        told, deadline = False, time.monotonic() + sqlite.BUSY_SECONDS
        while True:
            try:
                return Writer(store).write(write)
            except MlflowException as error:
                if run_id in self._open_runs and _is_deleted(error):
                    self._give_up(run_id, error)
                    return None
                # MLflow waits 20 s. What was not written at all may be written again.
                if not store.database or not sqlite.is_locked(error):
                    raise
                if time.monotonic() > deadline:
                    reason = sqlite.STILL_LOCKED.format(seconds=sqlite.BUSY_SECONDS)
                    raise RunFailed(f"{store.database}: {reason}") from None
                if not told:
                    sqlite.tell_of_lock(store.database)
                told = True

    def _give_up(self, run_id: str, error: MlflowException) -> None:
        """Record nothing more about a run that somebody has deleted.

        Raises:
            RunFailed: It is not one of many in a study, which goes on without its record.
            RecordLost: Neither is it, and nobody can restore it.
        """
        words = f"the run {run_id} was deleted in MLflow"
        self._given_up.add(run_id)
        kind = self._open_runs.pop(run_id, "")
        if kind not in ("trial", "confirm"):
            if NOT_FOUND.search(str(error)):
                raise RecordLost(f"{words}, for good.")
            restore = self.store.restoring(f"runs restore --run-id {run_id}")
            raise RunFailed(f"{words}. Restore it with:\n{restore}")
        warnings.warn(f"{words}: the rest of this {kind} is not recorded", stacklevel=2)

    def _recover(self) -> Recovered:
        store = self.store
        sent, waiting = self._queue.send_others() if self._queue else (0, 0)
        elsewhere = []
        for run in store.running():
            if not store.is_left_open(run):
                owner = Owner.from_text(run.owner)
                if run.outcome and not (owner and owner.is_here):
                    elsewhere.append(run.run_id)
                continue
            if run.outcome in STATUS:  # its process died between its last two writes
                self._write(TerminateRun(run.run_id, STATUS[run.outcome], _now()))
            else:
                self._end(EndRun(run.run_id, "interrupted", tags=DIED))
        return Recovered(sent, waiting, tuple(elsewhere))

    def _start(self, record: RunRecord) -> str:
        source = self._source_with(record.modules)
        tags = {
            f"harness.{name}": value
            for name, value in {
                "experiment": record.experiment,
                "kind": record.kind,
                "outcome": "running",
                # Tags, not only a file: a run that is killed in a moment can be continued too.
                "fields": json.dumps(record.fields),
                "settings": json.dumps(record.settings),
                "parameters": json.dumps(record.parameters),
                **record.tags,
                **{f"data.{part.context}_sha256": part.digest for part in record.data},
                **{f"data.{part.context}_size": str(part.size) for part in record.data},
                "python": platform.python_version(),
                **{name: provenance.version(name) for name in ("mlflow", "optuna")},
                "git_commit": source.commit or "none",
                "git_state": source.state,
                **({"git_reason": source.reason} if source.reason else {}),
                **_code_tags(record.code, source.state),
                "command": command_text(record.command),
            }.items()
        }
        begins = " ".join(tags["harness.command"].split()[:3])
        tags["mlflow.source.name"] = begins or (record.code.origin if record.code else "")
        tags["mlflow.source.type"] = "LOCAL"
        if source.commit:
            tags["mlflow.source.git.commit"] = source.commit
        if record.parent:
            tags["mlflow.parentRunId"] = record.parent
        store = self.store
        run_id = self._write(
            CreateRun(
                key=uuid.uuid4().hex if store.is_remote else "",
                experiment=record.mlflow_experiment,
                about=record.about,
                name=mask(record.name),
                tags=tags | {n: masked_value(n, value) for n, value in record.user_tags.items()},
                start_time=_now(),
            )
        )
        assert run_id
        try:
            self._describe(run_id, record, source, tags["harness.command"])
        except BaseException as error:
            reason = {"reason": f"it could not be recorded: {str(error).partition(chr(10))[0]}"}
            with contextlib.suppress(MlflowException, RunFailed, OSError):
                self._end(EndRun(run_id, "failed", tags=reason))
            raise
        self._open_runs[run_id] = record.kind
        return run_id

    def _source_with(self, modules: Sequence[str]) -> provenance.SourceState:
        """The state of the source when this recorder began, with the modules of a run.

        A module of the project that is new to git is recorded as soon as a run imports it.
        """
        known = self._source or provenance.source(modules)
        if any(path in known.others for path in modules):
            known = provenance.source(modules)
        self._source = known
        return known

    def _describe(
        self, run_id: str, record: RunRecord, source: provenance.SourceState, command: str
    ) -> None:
        """Record what is known about a run before its first epoch."""
        parameters = {name: str(value) for name, value in record.parameters.items()}
        inputs = [vars(part) for part in record.data]
        self._write(DescribeRun(run_id, parameters, inputs))
        description = {
            "experiment": record.experiment,
            "parameters": record.parameters,
            "fields": record.fields,
            "settings": record.settings,
            "data": inputs,
            "command": command,
            "git_commit": source.commit,
        }
        files = {"experiment.json": f"{json.dumps(description, indent=2)}\n".encode()}
        if not record.parent:  # children share their parent's
            files["environment.txt"] = provenance.environment().encode()
            if source.state == "dirty":
                files[CHANGES] = f"{source.summary()}\n".encode()
            if source.patch:
                files["changes.diff"] = source.patch
            if record.code and record.code.content:
                files[SOURCE_FILE] = record.code.content
        self._write(LogFiles(run_id, files))
        if record.system_metrics:
            self._monitor(run_id)

    def _reopen(self, message: ReopenRun) -> None:
        run_id, allowed = message.run_id, message.allowed
        tags = {"harness.allowed_changes": " ".join(allowed)} if allowed else {}
        self._write(ContinueRun(run_id, message.owner, tags))
        self._open_runs[run_id] = ""
        if message.record:
            run = self.store.client.get_run(store_address.stored_id(run_id))
            source = self._source_with(message.record.modules)
            self._describe(run_id, message.record, source, run.data.tags["harness.command"])

    def _log(
        self, run_id: str, step: int, metrics: dict[str, float], tags: dict[str, str] | None = None
    ) -> None:
        self._write(LogBatch(run_id, metrics, step, _now(), tags or {}))

    def _draw(self, run_id: str, record: FiguresRecord) -> None:
        started = time.perf_counter()
        drawn = run_figures.draw_run(
            record.title, record.dataset, record.history, record.inspection
        )
        files = style.png_files(drawn)
        tables = run_figures.tables(record.history, record.inspection)
        files |= {name: text.encode() for name, text in tables.items()}
        self._write(LogFiles(run_id, files))
        seconds = time.perf_counter() - started
        self._log(run_id, len(record.history), {"time/figures_seconds": seconds})

    def _log_model(self, run_id: str, model: ModelRecord) -> float:
        started = time.perf_counter()
        self._write(LogNetwork(run_id, **vars(model)))
        return time.perf_counter() - started

    def _end(self, message: EndRun) -> None:
        if monitor := self._monitors.pop(message.run_id, None):
            monitor.finish()
        metrics = dict(message.metrics)
        # The numbers of a run that others close are not of its last epoch.
        if message.epoch and (peak := peak_memory()) is not None:
            metrics["memory/recorder_peak_bytes"] = float(peak)
        tags = {f"harness.{name}": mask(value) for name, value in message.tags.items()}
        tags["harness.outcome"] = message.outcome
        if message.description:
            tags[NOTE] = message.description
        self._log(message.run_id, message.epoch, metrics, tags)
        self._write(TerminateRun(message.run_id, STATUS[message.outcome], _now()))
        self._open_runs.pop(message.run_id, None)

    def _monitor(self, run_id: str) -> None:
        # Imported only if the user asks for system metrics, which need further packages.
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitors[run_id] = SystemMetricsMonitor(
            run_id, sampling_interval=1, tracking_uri=self.store.uri
        )
        self._monitors[run_id].start()


def _code_tags(code: OutsideCode | None, state: str) -> dict[str, str]:
    """What tells that an experiment is in no file of `experiments/`, and where it was."""
    if not code:
        return {}
    tags = {"code_origin": code.origin, "source_sha256": code.digest, "code_missing": code.missing}
    if not code.is_in_project:
        tags |= {"git_state": OUTSIDE, "project_state": state}
    return {name: value for name, value in tags.items() if value}


def _is_deleted(error: MlflowException) -> bool:
    text = str(error)
    return "must be in the 'active' state" in text or bool(NOT_FOUND.search(text))


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
