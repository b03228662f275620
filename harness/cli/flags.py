"""Parsing a command line into dataclasses, with one wording for everything that is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from harness.base.errors import BadRequest, nearest

REPEATABLE = {"--tag", "--allow"}
"""Flags that may be given several times."""

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The settings of a command without flags."""


def parse(
    experiment: Any,
    settings_class: type[Settings],
    arguments: Sequence[str],
    program: str,
    description: str,
) -> tuple[Any, Settings]:
    """Parse the fields of an experiment together with a command's settings.

    Args:
        experiment: an experiment class, or an instance whose values become the defaults.

    Raises:
        BadRequest: a flag is unknown or repeated, or a value is not allowed.
        SystemExit: the help was printed.
    """
    import tyro  # 0.2 s, which the listings and the refusal of an unknown name do not wait for

    has_values = not isinstance(experiment, type)
    experiment_class: Any = type(experiment) if has_values else experiment
    default = dataclasses.field(default=experiment) if has_values else dataclasses.field()
    request_class = dataclasses.make_dataclass(
        "Request",
        [
            ("settings", Annotated[settings_class, tyro.conf.arg(name="")]),
            ("experiment", Annotated[experiment_class, tyro.conf.arg(name="")], default),
        ],
    )
    _refuse_clashes(experiment_class, settings_class, program)
    _refuse_unknown_flags([settings_class, experiment_class], arguments, program)
    request: Any = _parse(request_class, arguments, program, description)
    return request.experiment, _usable(request.settings)


def parse_settings(
    settings_class: type[Settings], arguments: Sequence[str], program: str, description: str
) -> Settings:
    """Parse the settings of a command without an experiment; see `parse`."""
    _refuse_unknown_flags([settings_class], arguments, program)
    return _usable(_parse(settings_class, arguments, program, description))


def refuse_repeated_flags(arguments: Sequence[str]) -> None:
    """Refuse a flag that is given twice; otherwise the last one would win silently.

    Raises:
        BadRequest: a flag that takes one value is repeated.
    """
    for flag, count in Counter(_flags(arguments)).items():
        if count > 1 and flag not in REPEATABLE:
            raise BadRequest(f"{flag} is given {count} times; give it once.")


def _parse(target: type[Settings], arguments: Sequence[str], program: str, text: str) -> Settings:
    import tyro  # see `parse`

    with _one_line_errors(program):
        return tyro.cli(
            target,
            args=list(arguments),
            prog=program,
            description=text,
            config=(
                tyro.conf.OmitArgPrefixes,
                tyro.conf.FlagCreatePairsOff,
            ),
        )


def _flags(arguments: Sequence[str]) -> list[str]:
    """The flags among the arguments, written with hyphens."""
    flags = (word.partition("=")[0] for word in arguments if word.startswith("--"))
    return [flag.replace("_", "-") for flag in flags]


def _refuse_unknown_flags(classes: Sequence[Any], arguments: Sequence[str], program: str) -> None:
    refuse_repeated_flags(arguments)
    # A field that would be a keyword of Python ends with an underscore.
    names = {
        field.name.rstrip("_").replace("_", "-")
        for owner in classes
        for field in dataclasses.fields(owner)
    }
    for flag in _flags(arguments):
        name = flag.removeprefix("--")
        if name != "help" and name not in names and name.removeprefix("no-") not in names:
            guess = nearest(flag, [f"--{known}" for known in names])
            hint = f"{guess} " if guess.startswith("Did") else ""
            raise BadRequest(f"There is no flag {flag}. {hint}All flags: {program} --help")


def _refuse_clashes(experiment_class: Any, settings_class: Any, program: str) -> None:
    """Refuse a field of an experiment that is called like a flag of the command."""
    flags = {field.name for field in dataclasses.fields(settings_class)}
    for field in dataclasses.fields(experiment_class):
        if field.name in flags:
            raise BadRequest(
                f"{experiment_class.__name__}: the field {field.name} is called like a flag of "
                f"{program.rpartition(' ')[0]}; give it another name."
            )


def _usable(settings: Settings) -> Settings:
    """The settings with each ~ of a path expanded.

    Raises:
        BadRequest: a path holds a null byte, with which Python's versions fail in different ways.
    """
    paths: dict[str, Any] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            if "\0" in str(value):
                raise BadRequest(f"{field.name}: {str(value)!r} holds a null byte.")
            paths[field.name] = Path(os.path.expanduser(value))
    return dataclasses.replace(settings, **paths)  # type: ignore[type-var]


_REWORDED = {
    r"^Error parsing (--[\w-]+): ": r"\1: ",
    r"^Error parsing \w+: ": "",
    r"no type matching .*(?:<class '(?:int|float)'>|\)\]): ": "",
    r"invalid literal for int\(\) with base 10: (.*)$": r"\1 is not a whole number.",
    r"could not convert string to float: (.*)$": r"\1 is not a number.",
    r"^Unrecognized options: (.*)$": r"There is no flag or argument \1.",
    r"^Missing value for argument '(--[\w-]+)'.*$": r"\1: the value is missing.",
}
"""tyro's messages, and what the user reads instead."""


@contextlib.contextmanager
def _one_line_errors(program: str) -> Iterator[None]:
    """Turn the box that tyro prints around an error into the message of a BadRequest.

    Raises:
        BadRequest: tyro refused the command line.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as exit_request:
        if not exit_request.code:
            raise
        message = _message_of(printed.getvalue(), program)
        raise BadRequest(f"{message}\nAll flags: {program} --help") from None
    if sys.stderr:
        sys.stderr.write(printed.getvalue())


def _message_of(printed: str, program: str) -> str:
    """The message inside tyro's box, which is drawn with lines or, on other terminals, with spaces.

    A title comes first and a rule last. Missing arguments stand four spaces deep, their help eight.
    """
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()
    inside = [line[2:].rstrip("│ ") for line in lines[1:]]
    message = list(itertools.takewhile(_is_text, itertools.dropwhile(_is_rule, inside))) or lines
    if message[0].startswith("Missing from "):
        missing = [line.split()[0] for line in message if re.match(r" {4}\S", line)]
        usage = f"usage: {program} {' '.join(missing)} [--flag value ...]"
        return f"Missing: {', '.join(missing)}.\n{usage}"
    text = " ".join(line.strip() for line in message)
    for pattern, replacement in _REWORDED.items():
        text = re.sub(pattern, replacement, text)
    return text


def _is_rule(line: str) -> bool:
    return bool(line) and set(line) <= {"─", "-"}


def _is_text(line: str) -> bool:
    return not _is_rule(line)
