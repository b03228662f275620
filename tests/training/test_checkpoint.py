"""A checkpoint is read back as it was written, or refused; a failed write harms nothing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.training import checkpoint
from harness.training.checkpoint import (
    Checkpoint,
    CheckpointDamaged,
    CheckpointUnsaved,
    HistoryFile,
)

ROOT = Path(__file__).resolve().parents[2]

STATE = {
    "network": {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.tensor([-0.0, 1e-40])},
    "optimizer": {"state": {0: {"step": torch.tensor(3), "exp_avg": torch.ones(2)}}},
    "scheduler": None,
    "buffers": {"mean": torch.ones(2, dtype=torch.float64)},
    "generators": {"python": random.Random(0).getstate(), "seed": 2**63 - 1},
}


HEAD = (
    b'{"run": "r", "experiment": "e", "epoch": 1, "history_bytes": 0, "history_sha256": ""}' + b"\n"
)


def of(state: dict[str, Any]) -> Checkpoint:
    """A checkpoint with a state."""
    return Checkpoint("r", "e", 1, 0, "", checkpoint.encode(state))


def state_in(path: Path) -> dict[str, Any]:
    return checkpoint.load(path).state()


def signed(content: bytes, head: bytes = HEAD) -> bytes:
    """Any content in the form of a checkpoint: what it is of and its digest before it."""
    return hashlib.sha256(head + content).hexdigest().encode() + b"\n" + head + content


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "checkpoint"
    checkpoint.save(path, of(STATE))
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Hypothesis's examples put their files, one over the other."""
    return tmp_path_factory.mktemp("place") / "checkpoint"


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointDamaged) as raised:
        checkpoint.load(path)
    return str(raised.value)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path / "new" / "folder", 3)
    checkpoint.save(path, of(STATE))
    loaded = state_in(path)
    assert list(loaded) == list(STATE)
    for name, weights in STATE["network"].items():  # type: ignore[attr-defined]
        # Bit for bit: -0.0 is not 0.0, and a denormal number is not flushed.
        assert loaded["network"][name].numpy().tobytes() == weights.numpy().tobytes()
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], torch.ones(2))
    assert [loaded[name] for name in ("scheduler", "generators")] == [
        STATE[name] for name in ("scheduler", "generators")
    ]
    assert [file.name for file in path.parent.iterdir()] == ["epoch-000003.checkpoint"]


@given(st.data())
@settings(max_examples=200)
def test_a_flipped_byte_is_found_wherever_it_is(saved: bytes, place: Path, data: Any) -> None:
    position = data.draw(st.integers(0, len(saved) - 1))
    change = data.draw(st.integers(1, 255))
    altered = bytearray(saved)
    altered[position] ^= change
    assert str(place) in refused(place, bytes(altered))


@given(st.data())
def test_a_truncated_file_is_refused(saved: bytes, place: Path, data: Any) -> None:
    length = data.draw(st.integers(0, len(saved) - 1))
    refused(place, saved[:length])


@given(st.data())
@settings(max_examples=300)
def test_what_was_altered_and_signed_anew_is_a_state_or_refused(
    saved: bytes, place: Path, data: Any
) -> None:
    content = bytearray(saved.split(b"\n", 2)[2])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "truncate"])):
            case "flip":
                content[position] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[position : position + data.draw(st.integers(1, 500))]
            case "insert":
                content[position:position] = data.draw(st.binary(max_size=8))
            case "truncate":
                del content[max(1, position) :]
        content = content or bytearray(b" ")
    place.write_bytes(signed(bytes(content)))
    try:
        state = state_in(place)
    except CheckpointDamaged as damage:
        assert str(place) in str(damage)  # noqa: PT017
        assert len(str(damage).splitlines()) == 1  # noqa: PT017
    else:
        assert isinstance(state, dict)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(st.binary(max_size=300))
def test_a_file_of_something_else_is_refused(place: Path, content: bytes) -> None:
    refused(place, content)
    refused(place, signed(content))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner),
        max_leaves=10,
    )
)
def test_a_pickle_of_something_else_is_refused(place: Path, content: object) -> None:
    refused(place, signed(pickle.dumps(content, protocol=2)))


def test_a_file_that_torch_wrote_by_itself_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    assert "digest" in refused(tmp_path / "checkpoint", buffer.getvalue())


def test_a_list_is_no_state(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save([1, 2], buffer)
    assert "it holds a list" in refused(tmp_path / "checkpoint", signed(buffer.getvalue()))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "no" / "folder"):
        with pytest.raises(CheckpointDamaged, match="cannot be read"):
            checkpoint.load(path)


class Planted:
    """What an attacker would put into a file: it makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, zipped: bool) -> None:
    planted = Planted(tmp_path / "planted")
    buffer = io.BytesIO()
    torch.save({"network": planted}, buffer, _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "checkpoint", signed(buffer.getvalue()))
    refused(tmp_path / "checkpoint", signed(pickle.dumps({"network": planted}, protocol=2)))
    assert not (tmp_path / "planted").exists()
    # The plant is alive: an unpickling that does not look would have run it.
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert (tmp_path / "planted").exists()


@contextlib.contextmanager
def failing(
    patch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException
) -> Iterator[Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    with patch.context() as inner:
        inner.setattr(owner, name, fail)
        yield


@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "mkdir")], ids=str
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException
) -> None:
    path = tmp_path / "epoch-000001.checkpoint"
    checkpoint.save(path, of({"epoch": 1}))
    told = CheckpointUnsaved if isinstance(error, OSError) else type(error)
    with failing(monkeypatch, owner, name, error), pytest.raises(told) as raised:
        checkpoint.save(path, of({"epoch": 2}))
    if told is CheckpointUnsaved:
        assert str(raised.value) == f"{path}: cannot be written (No space left on device)."
    assert state_in(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


DYING_SAVE = """
import os, sys
from pathlib import Path
from harness.training import checkpoint
path = Path(sys.argv[1])
def of(state):
    return checkpoint.Checkpoint("r", "e", 1, 0, "", checkpoint.encode(state))
checkpoint.save(path, of({"epoch": 1}))
os.fsync = lambda descriptor: os._exit(9)
checkpoint.save(path, of({"epoch": 2}))
"""


@pytest.mark.processes
def test_a_process_that_dies_in_a_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "epoch-000001.checkpoint"
    command = [sys.executable, "-c", DYING_SAVE, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    assert state_in(path) == {"epoch": 1}
    assert checkpoint.latest_first(tmp_path) == [path]
    checkpoint.save(path, of({"epoch": 3}))
    assert state_in(path) == {"epoch": 3}
    assert list(tmp_path.iterdir()) == [path]


def test_pruning_keeps_the_latest(tmp_path: Path) -> None:
    for epoch in (1, 2, 9, 10, 100):
        checkpoint.save(checkpoint.path_of(tmp_path, epoch), of({"epoch": epoch}))
    (tmp_path / "notes.txt").touch()
    checkpoint.prune(tmp_path, 2)
    kept = [state_in(path)["epoch"] for path in checkpoint.latest_first(tmp_path)]
    assert kept == [100, 10]
    assert (tmp_path / "notes.txt").exists()
    checkpoint.prune(tmp_path, 5)
    assert len(checkpoint.latest_first(tmp_path)) == 2


@given(
    values=st.lists(st.floats(width=32), max_size=20),
    shape=st.sampled_from([(0,), (1, 0), (2, 3)]),
    words=st.dictionaries(st.text(), st.integers(), max_size=3),
)
def test_any_state_comes_back(
    place: Path, values: list[float], shape: tuple[int, ...], words: dict[str, int]
) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    checkpoint.save(place, of({"tensor": tensor, "empty": torch.zeros(shape), "words": words}))
    loaded = state_in(place)
    assert np.array_equal(loaded["tensor"].view(torch.int32), tensor.view(torch.int32))
    assert loaded["empty"].shape == shape
    assert loaded["words"] == words


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"[" * 100_000 + b"\n",
        HEAD.replace(b"1", b'"1"'),
        HEAD.replace(b"1", b"-1"),
        HEAD.replace(b"1", b"true"),
        HEAD.replace(b'"r"', b"5"),
        HEAD.replace(b'"run"', b'"runs"'),
        HEAD.replace(b"{", b'{"content": "x", '),
    ],
)
def test_a_file_that_does_not_say_what_it_is_of_is_refused(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "checkpoint"
    assert "say what it is of" in refused(path, signed(checkpoint.encode(STATE), head))
    path.write_bytes(signed(checkpoint.encode(STATE)))
    assert checkpoint.load(path).run == "r"


def epochs(first: int, last: int) -> list[tuple[int, dict[str, float]]]:
    return [(epoch, {"train/loss": 1 / epoch, "lr": float("nan")}) for epoch in range(first, last)]


def with_history(epoch: int, size: int, sha256: str) -> Checkpoint:
    return Checkpoint("r", "e", epoch, size, sha256, b"")


def test_the_history_grows_by_a_line_an_epoch_and_each_checkpoint_knows_its_part(
    tmp_path: Path,
) -> None:
    path, history = tmp_path / "x.checkpoint", HistoryFile()
    saved = {
        last: with_history(last, *history.write(tmp_path, epochs(1, last + 1)))
        for last in (1, 3, 4)
    }
    for last, each in saved.items():
        assert repr(checkpoint.history(path, each)) == repr(epochs(1, last + 1))
    assert saved[1].history_bytes < saved[3].history_bytes < saved[4].history_bytes
    # Another process goes on from the third epoch; what came after it is gone.
    again = HistoryFile()
    again.write(tmp_path, epochs(1, 4))
    assert repr(checkpoint.history(path, saved[3])) == repr(epochs(1, 4))
    with pytest.raises(CheckpointDamaged, match="epochs up to it"):
        checkpoint.history(path, saved[4])
    # A write that a full disk cut off is written over.
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'[4, {"train/lo')
    more = with_history(5, *again.write(tmp_path, epochs(1, 6)))
    assert repr(checkpoint.history(path, more)) == repr(epochs(1, 6))
    # Somebody deletes it while the training runs.
    (tmp_path / "history.jsonl").unlink()
    whole = with_history(6, *again.write(tmp_path, epochs(1, 7)))
    assert repr(checkpoint.history(path, whole)) == repr(epochs(1, 7))


@given(st.data())
def test_a_history_that_was_altered_is_refused(tmp_path_factory: Any, data: Any) -> None:
    folder = tmp_path_factory.mktemp("history")
    path = folder / "x.checkpoint"
    saved = with_history(3, *HistoryFile().write(folder, epochs(1, 4)))
    content = bytearray((folder / "history.jsonl").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "history.jsonl").write_bytes(content)
    with pytest.raises(CheckpointDamaged):
        checkpoint.history(path, saved)
    (folder / "history.jsonl").unlink()
    with pytest.raises(CheckpointDamaged):
        checkpoint.history(path, saved)


@pytest.mark.parametrize("lines", [b"1\n2\n3\n", b"[1]\n", b"\xff\n", b"[1, {}]\n[3, {}]\n", b""])
def test_a_history_of_something_else_is_refused(tmp_path: Path, lines: bytes) -> None:
    (tmp_path / "history.jsonl").write_bytes(lines)
    signed_anew = with_history(3, len(lines), hashlib.sha256(lines).hexdigest())
    with pytest.raises(CheckpointDamaged, match="epochs up to it"):
        checkpoint.history(tmp_path / "x.checkpoint", signed_anew)
