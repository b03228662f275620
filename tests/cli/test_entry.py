"""A command ends with the documented exit status and a short message, never with a traceback."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.processes


def entered(body: str) -> subprocess.CompletedProcess[str]:
    """A process that enters a command with this body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    program = (
        "import os, signal, sys, warnings\n"
        "from harness.base.errors import BadRequest, RunFailed\n"
        "from harness.cli import entry\n"
        f"def main(arguments):\n{lines}\n"
        "entry.enter(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("body", "status", "errors"),
    [
        ("return 0", 0, ""),
        ("return 3", 3, ""),
        ("raise BadRequest('lr: no.')", 2, "error: lr: no.\n"),
        ("raise RunFailed('It failed.')", 1, "error: It failed.\n"),
        ("sys.exit()", 0, ""),
        ("sys.exit(4)", 4, ""),
        ("sys.exit('Good bye.')", 1, "error: Good bye.\n"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, ""),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ("raise BrokenPipeError", 1, ""),
        (
            f"raise OSError({errno.ENOSPC}, 'No space left')",
            1,
            f"error: [Errno {errno.ENOSPC}] No space left\n",
        ),
        ("warnings.warn('Beware of --token=abc')\nreturn 0", 0, "warning: Beware of --token=***\n"),
        ("raise RunFailed('see http://ann:pw@h')", 1, "error: see http://***@h\n"),
        ("print('\\udcff')\nreturn 0", 0, ""),
    ],
)
def test_the_status_and_the_message_say_how_it_ended(body: str, status: int, errors: str) -> None:
    ended = entered(body)
    assert (ended.returncode, ended.stderr) == (status, errors)


def test_a_long_line_of_a_message_loses_its_middle() -> None:
    ended = entered("raise BadRequest('a' * 300 + 'b' * 300 + '\\nshort')")
    first, second = ended.stderr.splitlines()
    assert first == f"error: {'a' * 200} ... {'b' * 200}"
    assert second == "short"


def test_a_bug_shows_its_traceback() -> None:
    ended = entered("return {}['missing']")
    assert ended.returncode == 1
    assert "KeyError: 'missing'" in ended.stderr


def test_the_wait_for_an_interruption_ends_with_it() -> None:
    timer = "signal.setitimer(signal.ITIMER_REAL, 0.2)"
    ended = entered(
        "signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))\n"
        f"{timer}\nentry.wait_for_interruption()"
    )
    assert (ended.returncode, ended.stderr) == (143, "")
