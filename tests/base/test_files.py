"""A file is written completely or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.base.files import write_whole


def test_a_file_holds_its_parts_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    write_whole(path, b"one", memoryview(b"two"))
    assert path.read_bytes() == b"onetwo"
    write_whole(path, b"three")
    assert [file.name for file in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"three"


def test_a_failure_leaves_the_old_content_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_the_folder_is_forced_to_disk_where_folders_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    opened: list[Path] = []
    real = os.open

    def recording(path: Path, flags: int, mode: int = 0o777, **options: int | None) -> int:
        opened.append(path)
        return real(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", recording)
    monkeypatch.setattr(sys, "platform", platform)
    write_whole(tmp_path / "file", b"content")
    assert (tmp_path in opened) == (platform == "linux")
