"""A file that a flag names is checked beforehand, and written completely or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.base.errors import BadRequest
from harness.cli import output


def test_a_file_is_written_over_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    for content in (b"old", b"new"):
        output.check_writable("out", path)
        output.write_output("out", path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "it is a folder."),
        ("missing/x", "there is no folder "),
        ("y" * 5000, "File name too long."),
    ],
)
def test_what_cannot_be_written_is_known_beforehand(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    with pytest.raises(BadRequest) as refused:
        output.check_writable("out", path)
    assert str(refused.value).startswith(f"out: {path} cannot be written: {reason}")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="file modes do not bind this user"
)
def test_a_folder_without_permission_is_known_beforehand(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadRequest, match="permission denied"):
        output.check_writable("out", tmp_path / "x")


def test_a_failure_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(BadRequest, match=r"out: .* cannot be written: No space left on device"):
        output.write_output("out", path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output.check_writable("out", path)
    output.write_output("out", path, b"page")
    assert os.read(reader, 10) == b"page"
    os.close(reader)
    assert path.is_fifo()
