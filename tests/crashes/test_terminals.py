"""Standard streams that are closed, full or read by nobody; closed terminals; stopped processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Checkout, Recorded, once

from harness.tracking.reader import DatabaseReader
from harness.tracking.selection import trained_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other terminals")

RUN = ("softmax_regression", "--dataset", "digits", "--threads", "1", "--no-figures")


def in_shell(checkout: Checkout, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command],
        cwd=checkout.root,
        env=checkout.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return once(tmp_path_factory, "used", (*RUN, "--num-epochs", "1"))


ENDS = {
    ">&-": 0,
    "2>&-": 0,
    "<&-": 0,
    "<&- >&- 2>&-": 0,
    "> /dev/full": 1,
    "> /dev/full 2>&1": 1,
    "2>&1 | head -1": 0,
}
"""What stands behind a command, and its exit status."""


@pytest.mark.parametrize("end", ENDS)
def test_a_run_whose_output_is_lost_is_completed_and_recorded(checkout: Checkout, end: str) -> None:
    words = " ".join((sys.executable, "-m", "harness.run", *RUN, "--num-epochs", "200"))
    ended = in_shell(checkout, f"{{ {{ {words}; echo status $? >&9; }} {end}; }} 9>&1")
    assert f"status {ENDS[end]}" in ended.stdout.splitlines()
    assert "Traceback" not in ended.stdout + ended.stderr
    assert ended.stderr == (
        "error: The output was lost: No space left on device.\n" if end == "> /dev/full" else ""
    )
    (run,) = checkout.runs()
    assert (run.info.status, run.data.tags["harness.outcome"]) == ("FINISHED", "completed")
    assert run.data.metrics["train/loss"] > 0


@pytest.mark.parametrize("end", [">&-", "> /dev/full", "<&- >&- 2>&-", "2>&1 | head -1"])
def test_listings_and_reports_say_nothing_of_lost_output(
    used: Recorded, tmp_path: Path, end: str
) -> None:
    checkout, ended = used
    report = tmp_path / "report.html"
    for words in (
        "harness",
        "harness.compare --experiment softmax_regression",
        f"harness.report softmax_regression --out {report}",
        f"harness.verify {ended.run_id}",
        "harness.study --help",
    ):
        command = f"{sys.executable} -m {words}"
        said = in_shell(checkout, f"{{ {{ {command}; echo status $? >&9; }} {end}; }} 9>&1")
        assert f"status {ENDS[end]}" in said.stdout.splitlines(), (words, said)
        assert "Traceback" not in said.stdout + said.stderr
        assert "Broken pipe" not in said.stdout + said.stderr
    assert report.stat().st_size > 10_000


def test_a_study_whose_output_is_lost_is_completed(checkout: Checkout) -> None:
    words = (
        "lr_search --dataset digits --num-epochs 2 --threads 1 --workers 1 --n-trials 3 "
        "--confirm-seeds 2"
    )
    command = f"{sys.executable} -m harness.study {words}"
    said = in_shell(checkout, f"{{ {{ {command}; echo status $? >&9; }} | head -1; }} 9>&1")
    assert "status 0" in said.stdout.splitlines()
    assert said.stderr == ""
    (study,) = (r for r in checkout.runs() if r.data.tags["harness.kind"] == "study")
    assert study.data.tags["harness.outcome"] == "completed"


def test_a_closed_stream_does_not_become_a_file_of_the_commands(checkout: Checkout) -> None:
    program = (
        "import os\n"
        "from harness.cli import entry\n"
        "def main(arguments):\n"
        "    with open('mine', 'wb') as file:\n"
        "        number = file.fileno()\n"
        "    os.write(2, b'of a library')\n"
        "    return 0 if number > 2 else 5\n"
        "entry.enter(main)\n"
    )
    (checkout.root / "command.py").write_text(program)
    ended = in_shell(checkout, f"{sys.executable} command.py <&- >&- 2>&-")
    assert ended.returncode == 0


def test_a_closed_terminal_interrupts_a_run_which_can_be_resumed(checkout: Checkout) -> None:
    with checkout.running(*RUN, "--num-epochs", "1000") as process:
        assert process.stdout
        process.stdout.readline()
        for _ in range(2):  # the shell and the system each say so
            os.killpg(process.pid, signal.SIGHUP)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 129
    assert errors == ""
    (run,) = checkout.runs()
    assert run.data.tags["harness.outcome"] == "interrupted"
    assert f"python -m harness.run --resume {run.info.run_id}" in output
    assert checkout.run("--resume", run.info.run_id, "--quiet").status == 0


def test_a_closed_terminal_does_not_end_a_run_under_nohup(checkout: Checkout) -> None:
    command = [sys.executable, "-m", "harness.run", *RUN, "--num-epochs", "400"]
    with subprocess.Popen(
        ["nohup", *command],
        cwd=checkout.root,
        env=checkout.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGHUP)
        process.communicate(timeout=120)
    assert process.returncode == 0
    (run,) = checkout.runs()
    assert run.data.tags["harness.outcome"] == "completed"


def test_a_stopped_run_goes_on_to_the_same_bits(checkout: Checkout) -> None:
    words = (*RUN, "--num-epochs", "400", "--quiet")
    assert checkout.run(*words).status == 0
    # A group whose parent is in another one of the same session, as a shell's job is.
    process = checkout.start("harness.run", *words, process_group=0)
    try:
        deadline = time.monotonic() + 60
        while len(checkout.runs()) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTSTP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGCONT)
        process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    digests = {run.data.tags["harness.weights_sha256"] for run in checkout.runs()}
    assert len(checkout.runs()) == 2
    assert len(digests) == 1


def test_the_latest_run_is_the_last_one_begun_also_by_a_clock_that_was_set_back(
    checkout: Checkout,
) -> None:
    first, second = (checkout.run(*RUN, "--num-epochs", "1", "--quiet") for _ in range(2))
    with closing(sqlite3.connect(checkout.store)) as connection, connection:
        connection.execute(
            "UPDATE runs SET start_time = start_time - 3600000, end_time = start_time - 7200000 "
            "WHERE run_uuid = ?",
            [second.run_id],
        )
    reader = DatabaseReader(checkout.store)
    assert [run.run_id for run in reader.runs()] == [second.run_id, first.run_id]
    assert trained_run("last", reader).run_id == second.run_id
    shown = checkout.command("harness.compare", "--experiment", "softmax_regression")
    assert (shown.status, shown.errors) == (0, "")
