"""Who works on a run or trial: told apart from a later process, another boot, another machine."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import platform
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.base import machine, ownership
from harness.base.ownership import Owner, is_owner_dead

ROOT = Path(__file__).resolve().parents[2]

LONG_AGO = 0.0

PROGRAM = """
import sys
from harness.base.ownership import Owner
print(Owner.current(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Another process that says who it is and then waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def owner_of(process: subprocess.Popen[str]) -> Owner:
    assert process.stdout
    owner = Owner.from_text(process.stdout.readline())
    assert owner
    return owner


def test_this_process_is_here_and_lives() -> None:
    owner = Owner.current()
    assert owner.is_here
    assert not owner.is_dead(LONG_AGO)
    assert Owner.from_text(str(owner)) == owner


@pytest.mark.processes
def test_another_process_lives_until_it_is_killed(other: subprocess.Popen[str]) -> None:
    owner = owner_of(other)
    assert owner != Owner.current()
    assert owner.is_here
    assert not owner.is_dead(LONG_AGO)
    other.send_signal(signal.SIGSTOP)
    assert not owner.is_dead(LONG_AGO), "a process that was stopped for a while works on afterwards"
    other.kill()
    deadline = time.monotonic() + 5
    while not owner.is_dead(LONG_AGO) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert other.returncode is None, "nobody has waited for it: it is a zombie"
    assert owner.is_dead(LONG_AGO)
    other.wait()
    assert owner.is_dead(LONG_AGO)


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    assert dataclasses.replace(Owner.current(), started="1").is_dead(LONG_AGO)


@pytest.fixture
def known_machine(monkeypatch: pytest.MonkeyPatch) -> Owner:
    """This process on a machine that has an id and a network card."""
    monkeypatch.setattr(ownership, "machine_digest", lambda: "an id and a card")
    return Owner.current()


@pytest.mark.skipif(sys.platform != "linux", reason="boots have names on Linux alone")
def test_a_process_of_an_earlier_boot_is_dead_once_it_has_been_silent(known_machine: Owner) -> None:
    earlier = dataclasses.replace(known_machine, boot="an earlier one", namespace="any")
    assert not earlier.is_here
    assert earlier.is_dead(LONG_AGO)
    assert earlier.is_dead(time.time() - ownership.DEAD_AFTER_SECONDS - 1)
    assert not earlier.is_dead(time.time() - ownership.DEAD_AFTER_SECONDS + 30)
    assert not earlier.is_dead(time.time() + 3600), "the clock was set back"


@pytest.mark.parametrize("unknown", ["", "another"])
def test_a_process_of_another_machine_is_never_known_to_be_dead(
    known_machine: Owner, unknown: str
) -> None:
    there = dataclasses.replace(known_machine, machine=unknown, boot="x", started="1", pid=1)
    assert not there.is_here
    assert not there.is_dead(LONG_AGO)


def test_without_an_identity_no_boot_is_known_to_be_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "machine_digest", lambda: "")
    assert not dataclasses.replace(Owner.current(), boot="x").is_dead(LONG_AGO)


def test_a_process_of_another_container_is_not_judged(known_machine: Owner) -> None:
    there = dataclasses.replace(known_machine, namespace="pid:[1]", started="1", pid=1)
    assert not there.is_here
    assert not there.is_dead(LONG_AGO)


def test_neither_the_hosts_name_nor_its_network_hides_a_process(
    known_machine: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known_machine.boot:
        pytest.skip("the machine's own id is all that there is here")
    monkeypatch.setattr(platform, "node", lambda: "at-home")
    monkeypatch.setattr(ownership, "machine_digest", lambda: "another card")
    assert known_machine.is_here
    assert dataclasses.replace(known_machine, started="1").is_dead(time.time())


@pytest.mark.parametrize(
    "text",
    [
        *("", "no JSON", "[]", "null", "3", '"text"', "{}", '{"pid": 1}', "[" * 100_000),
        '{"pid": "1", "started": "1", "boot": "b", "namespace": "n", "machine": "m"}',
        '{"pid": true, "started": "1", "boot": "b", "namespace": "n", "machine": "m"}',
        '{"pid": 1, "started": 1, "boot": "b", "namespace": "n", "machine": "m"}',
        '{"pid": 1, "started": "1", "boot": "b", "namespace": "n", "machine": "m", "more": 1}',
    ],
    ids=lambda text: text[:20],
)
def test_a_text_that_describes_no_owner_is_none_and_nobodys_death(text: str) -> None:
    assert Owner.from_text(text) is None
    assert not is_owner_dead(text, LONG_AGO)


def test_a_start_that_is_no_number_is_another_process() -> None:
    assert dataclasses.replace(Owner.current(), started="yesterday").is_dead(LONG_AGO)


def test_the_works_of_dead_processes_are_found_whatever_else_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "register_folder", lambda: tmp_path)
    own, more = (ownership.register(work) for work in ({"store": "here"}, {"study": "s"}))
    assert own != more
    dead = dataclasses.replace(Owner.current(), started="1")
    entries: dict[str, Any] = {
        "dead": {"owner": str(dead), "work": {"store": "there"}},
        "no owner": {"work": {}},
        "odd owner": {"owner": 3, "work": {}},
        "list": [],
        "work of other kinds": {"owner": str(dead), "work": {"store": 5}},
        "no work": {"owner": str(dead), "work": 5},
    }
    for name, content in entries.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "half.json").write_text('{"owner": ')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.json").mkdir()
    with pytest.warns(UserWarning, match="skipped") as warned:
        found = list(ownership.left_behind())
    assert found == [ownership.LeftBehind(tmp_path / "dead.json", dead, {"store": "there"})]
    odd = {path for path in tmp_path.iterdir() if path.name != "dead.json"} - {own, more}
    assert {str(each.message).split(": ")[0] for each in warned} == {f"skipped {p}" for p in odd}
    assert json.loads(own.read_bytes())["work"] == {"store": "here"}


def test_an_owner_says_nothing_about_who_and_where() -> None:
    text = str(Owner.current()).lower()
    machine_id = Path("/etc/machine-id")
    secrets = [platform.node(), getpass.getuser(), str(uuid.getnode()), str(Path.home())]
    if machine_id.is_file():
        secrets.append(machine_id.read_text().strip())
    for secret in secrets:
        assert f'"{secret.lower()}"' not in text
        assert len(secret) < 8 or secret.lower() not in text
    assert set(json.loads(text)) == {"pid", "started", "boot", "namespace", "machine"}


def test_without_a_network_card_all_processes_agree_on_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = []
    for drawn in (0x1234_5678_9ABC | 1 << 40, 0xCBA9_8765_4321 | 1 << 40):
        monkeypatch.setattr(uuid, "getnode", lambda node=drawn: node)
        machine.machine_digest.cache_clear()
        names.append(Owner.current().machine)
    machine.machine_digest.cache_clear()
    assert names[0] == names[1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_name_with_spaces_and_parentheses_is_read() -> None:
    name = Path("/proc/self/comm")
    before = name.read_text()
    started = Owner.current().started
    try:
        name.write_text("a) Z 1 (b")
        assert Owner.current().started == started
        assert not Owner.current().is_dead(LONG_AGO)
    finally:
        name.write_text(before.strip())
    assert os.getpid() == Owner.current().pid
