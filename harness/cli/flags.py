"""What every command shares: its exit status, its messages, its flags."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from harness.base import signals
from harness.base.errors import BadRequest, RunFailed, nearest
from harness.base.privacy import mask

LONGEST_LINE = 400
"""Characters of a line of a message; of a longer one the middle is left out."""

Settings = TypeVar("Settings")


def enter(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a command and end the process with its status, never with a traceback.

    0 when all went well, 1 for a failed run, 2 for a bad request, 130 and 143 for an interruption.
    """
    signals.install()
    warnings.formatwarning = lambda message, *_: f"warning: {_presentable(str(message))}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the terminal's letters are
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main(sys.argv[1:])
    except BadRequest as error:
        status = complain(error, 2)
    except RunFailed as error:
        status = complain(error, 1)
    except signals.Interrupted as error:
        status = error.status
    except BrokenPipeError:
        status = 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        status = complain(error, 1)
    except SystemExit as error:
        code = error.code
        status = code if isinstance(code, int) else 0 if code is None else complain(error, 1)
    leave(status)


def complain(error: BaseException, status: int) -> int:
    """Print an error's message to standard error and return the status."""
    with contextlib.suppress(OSError):
        print(f"error: {_presentable(str(error))}", file=sys.stderr)
    return status


def leave(status: int) -> NoReturn:
    """End the process at once; everything that counts is on disk.

    The interpreter's own exit takes up to two seconds after torch was imported. What could not be
    printed makes a failure of a success.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except (OSError, ValueError):
            status = status or 1
    os._exit(status)


def parse(
    experiment: Any,
    settings_class: type[Settings],
    arguments: Sequence[str],
    program: str,
    description: str,
) -> tuple[Any, Settings]:
    """Read the fields of an experiment and of its settings from a command line.

    `experiment` is an experiment class, or an experiment whose values are the defaults.

    Raises:
        BadRequest: a value is not allowed, a flag is unknown, or given twice.
        SystemExit: the help was printed.
    """
    import tyro

    given = not isinstance(experiment, type)
    experiment_class: Any = type(experiment) if given else experiment
    default = dataclasses.field(default=experiment) if given else dataclasses.field()
    both = dataclasses.make_dataclass(
        "Request",
        [
            ("settings", Annotated[settings_class, tyro.conf.arg(name="")]),
            ("experiment", Annotated[experiment_class, tyro.conf.arg(name="")], default),
        ],
    )
    _refuse_flags([settings_class, experiment_class], arguments, program)
    with _told_in_words(program):
        request: Any = tyro.cli(
            both,
            args=list(arguments),
            prog=program,
            description=description,
            config=(
                tyro.conf.OmitArgPrefixes,
                tyro.conf.FlagCreatePairsOff,
                tyro.conf.UseAppendAction,
            ),
        )
    return request.experiment, request.settings


def parse_settings(
    settings_class: type[Settings], arguments: Sequence[str], program: str, description: str
) -> Settings:
    """Read the settings of a command that trains nothing itself; see `parse`."""
    import tyro

    _refuse_flags([settings_class], arguments, program)
    with _told_in_words(program):
        return tyro.cli(
            settings_class,
            args=list(arguments),
            prog=program,
            description=description,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.UseAppendAction),
        )


def wait_for_interruption() -> NoReturn:
    """Do nothing until Ctrl-C or SIGTERM.

    Raises:
        Interrupted: always, in the end.
    """
    while True:
        # Not for ever, as `signal.pause` does: a signal that comes just before it would be missed.
        time.sleep(1)


REPEATABLE = {"--tag", "--allow"}


def refuse_repeated_flags(arguments: Sequence[str]) -> None:
    """Refuse a flag that is given twice: the last one would win in silence.

    Raises:
        BadRequest: a flag that takes one value is given more often.
    """
    for flag, count in Counter(_flags(arguments)).items():
        if count > 1 and flag not in REPEATABLE:
            raise BadRequest(f"{flag} is given {count} times; give it once.")


def _flags(arguments: Sequence[str]) -> list[str]:
    """The flags among the words, with a minus between theirs."""
    words = (word.partition("=")[0] for word in arguments if word.startswith("--"))
    return [word.replace("_", "-") for word in words]


def _refuse_flags(classes: Sequence[Any], arguments: Sequence[str], program: str) -> None:
    """Refuse repeated and unknown flags.

    Raises:
        BadRequest: a flag is given twice, or no field of the classes has its name.
    """
    refuse_repeated_flags(arguments)
    names = {
        field.name.replace("_", "-") for owner in classes for field in dataclasses.fields(owner)
    }
    known = {"--help", *(f"--{name}" for name in names)}
    for flag in _flags(arguments):
        if flag not in known and flag.removeprefix("--no-") not in names:
            guess = nearest(flag, known - {"--help"})
            hint = f"{guess} " if guess.startswith("Did") else ""
            raise BadRequest(f"There is no flag {flag}. {hint}All of them: {program} --help")


_IN_OUR_WORDS = {
    r"^Error parsing (--[\w-]+): ": r"\1: ",
    r"^Error parsing \w+: ": "",
    r"invalid literal for int\(\) with base 10: (.*)$": r"\1 is not a whole number.",
    r"could not convert string to float: (.*)$": r"\1 is not a number.",
}


@contextlib.contextmanager
def _told_in_words(program: str) -> Iterator[None]:
    """Make of the frame that tyro prints around an error a message of one line.

    Raises:
        BadRequest: tyro has refused the command line.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as ended:
        if not ended.code:
            raise
        lines = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).splitlines()
        inside = [line.strip("│ ") for line in lines if line.startswith("│")]
        rule = next((i for i, line in enumerate(inside) if set(line) == {"─"}), len(inside))
        what = " ".join(inside[:rule]) or " ".join(lines)
        for pattern, words in _IN_OUR_WORDS.items():
            what = re.sub(pattern, words, what)
        raise BadRequest(f"{what}\nAll flags: {program} --help") from None
    if sys.stderr:
        sys.stderr.write(printed.getvalue())


def _presentable(message: str) -> str:
    """A message without credentials, and without the middle of a line that fills the screen."""
    half = LONGEST_LINE // 2
    return "\n".join(
        line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"
        for line in mask(message).splitlines()
    )
