"""What every command shares: its exit status, its messages, its flags."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from harness import interruption
from harness.errors import BadRequest, RunFailed

Settings = TypeVar("Settings")


def enter(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a command and end the process with its status, never with a traceback.

    0 when all went well, 1 for a failed run, 2 for a bad request, 130 and 143 for an interruption.
    """
    interruption.install()
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        status = main(sys.argv[1:])
    except BadRequest as error:
        status = complain(error, 2)
    except RunFailed as error:
        status = complain(error, 1)
    except interruption.Interrupted as error:
        status = error.status
    except BrokenPipeError:
        status = 1
    except SystemExit as error:
        code = error.code
        status = code if isinstance(code, int) else 0 if code is None else complain(error, 1)
    leave(status)


def complain(error: BaseException, status: int) -> int:
    """Print an error's message to standard error and return the status."""
    print(f"error: {error}", file=sys.stderr)
    return status


def leave(status: int) -> NoReturn:
    """End the process at once; everything that counts is on disk.

    The interpreter's own exit takes up to two seconds after torch was imported.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
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
        BadRequest: a value is not allowed, or a flag is given twice.
        SystemExit: tyro has printed the help (status 0) or its own error (2).
    """
    import tyro

    refuse_repeated_flags(arguments)
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

    refuse_repeated_flags(arguments)
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
        signal.pause()


REPEATABLE = {"--tag", "--allow"}


def refuse_repeated_flags(arguments: Sequence[str]) -> None:
    """Refuse a flag that is given twice: the last one would win in silence.

    Raises:
        BadRequest: a flag that takes one value is given more often.
    """
    flags = Counter(
        word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")
    )
    for flag, count in flags.items():
        if count > 1 and flag not in REPEATABLE:
            raise BadRequest(f"{flag} is given {count} times; give it once.")
