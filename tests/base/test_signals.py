"""Interruptions: raised at a safe moment, held back, swallowed, and the second one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT

from harness.base import signals
from harness.base.signals import Interrupted, deferred, raise_pending


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    signals.install()
    yield
    signals.install()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "name", "status"),
    [
        (signal.SIGINT, "SIGINT", 130),
        (signal.SIGTERM, "SIGTERM", 143),
        (signal.SIGHUP, "SIGHUP", 129),
    ],
)
def test_a_signal_raises_with_its_status(number: int, name: str, status: int) -> None:
    with pytest.raises(Interrupted, match=name) as raised:
        signal.raise_signal(number)
    assert raised.value.status == status


def test_a_signal_is_held_back_until_all_blocks_have_ended() -> None:
    done = []
    with pytest.raises(Interrupted), deferred():  # noqa: PT012 (what follows the signal counts)
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_a_signal_is_raised_also_if_the_block_fails() -> None:
    with pytest.raises(Interrupted), deferred():  # noqa: PT012 (what follows the signal counts)
        signal.raise_signal(signal.SIGINT)
        raise ValueError


def test_a_signal_that_was_swallowed_is_raised_again() -> None:
    raise_pending()  # none has come
    with contextlib.suppress(BaseException):  # as some libraries do while they are imported
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted):
        raise_pending()
    signals.install()
    raise_pending()


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.processes
def test_a_second_signal_ends_the_process_at_once() -> None:
    program = (
        "import signal\n"
        "from harness.base import signals\n"
        "signals.install()\n"
        "with signals.deferred():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('once', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('twice', flush=True)\n"
    )
    ended = ran(program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "once\n", "")


@pytest.mark.processes
def test_a_terminal_that_says_twice_that_it_is_gone_lets_the_process_end_in_order() -> None:
    program = (
        "import signal\n"
        "from harness.base import signals\n"
        "signals.install()\n"
        "with signals.deferred():\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    print('done', flush=True)\n"
    )
    ended = ran(program)
    assert ended.stdout == "done\n"
    assert "Interrupted: SIGHUP" in ended.stderr


def test_windows_own_signal_is_installed_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    handled = []
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    monkeypatch.setattr(signal, "signal", lambda number, _: handled.append(number))
    signals.install()
    assert handled == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, 21]
    monkeypatch.delattr(signal, "SIGBREAK")
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.delattr(os, "fork", raising=False)
    handled.clear()
    signals.install()
    assert handled == [signal.SIGINT, signal.SIGTERM]
