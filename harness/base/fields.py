"""One rule for every field: its type and bounds stand beside it and are checked here alone.

A field is declared as `lr: Annotated[float, Positive] = 0.1`. The command line, Python
(`Baseline(lr=-1)`) and the bounds of a study's search space all come through `check`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import numbers
import operator
import types
import typing
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal

from harness.base.errors import BadRequest, nearest

_COMPARISONS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "gt": (operator.gt, "greater than"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "less than"),
    "le": (operator.le, "at most"),
}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Bounds of a number, beside its type: `Annotated[int, Interval(ge=1, lt=64)]`."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def broken(self, value: float) -> str:
        """Return the bound that a value breaks, in words; "" if it is within all of them."""
        for name, (holds, words) in _COMPARISONS.items():
            limit = getattr(self, name)
            if limit is not None and not holds(value, limit):
                return f"{words} {limit}"
        return ""


@dataclass(frozen=True)
class Length:
    """Bounds of the number of characters of a text."""

    least: int
    most: int

    def broken(self, value: str) -> str:
        """Return what length is allowed if the text has another one; "" otherwise."""
        if self.least <= len(value) <= self.most:
            return ""
        return f"{self.least} to {self.most} characters long"


Positive = Interval(gt=0)
NonNegative = Interval(ge=0)
Fraction = Interval(ge=0, lt=1)
Count = Interval(ge=1, le=2**31 - 1)
"""What every library accepts as a number of things."""
Threads = Interval(ge=0, le=1024)
Seed = Interval(ge=0, le=2**63 - 1)
"""What `torch.manual_seed` accepts without wrapping around."""
Name = Length(1, 250)
"""What every record store accepts as a name."""

LONGEST_TEXT = 5000
"""Characters of a text. Record stores cut longer ones off without a word."""


def check(owner: type, name: str, value: Any) -> Any:
    """Return the value as the field `name` of the dataclass `owner` stores it.

    A float field accepts an integer, which becomes a float; an integer field accepts no float.

    Raises:
        BadRequest: No such field exists, or the value has the wrong type or is out of bounds.
    """
    hints = _hints(owner)
    if name not in hints:
        raise BadRequest(f"{owner.__name__} has no field {name!r}. {nearest(name, hints)}")
    return _checked(name, hints[name], value)


def check_declaration(owner: type) -> None:
    """Check that each field of a dataclass has a type that can be checked and recorded.

    Raises:
        BadRequest: An annotation names something that does not exist, or another type.
    """
    try:
        hints = _hints(owner)
    except Exception as error:  # an annotation may hold any expression
        raise BadRequest(f"{owner.__name__}: the type of a field cannot be read: {error}") from None
    for name, hint in hints.items():
        if not _is_possible(hint):
            raise BadRequest(
                f"{owner.__name__}: {name}: a field cannot be a {getattr(hint, '__name__', hint)}. "
                "Use int, float, bool, str, Literal[...], an Enum, a Path, or a tuple of these."
            )


def _is_possible(hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _is_possible(arguments[0])
    if origin in (types.UnionType, typing.Union, tuple):
        others = [part for part in arguments if part not in (types.NoneType, Ellipsis)]
        return bool(others) and all(map(_is_possible, others))
    return origin is Literal or (isinstance(hint, type) and issubclass(hint, _KINDS))


_KINDS = (bool, int, float, str, enum.Enum, PurePath)

RECORDABLE = (*_KINDS, tuple, types.NoneType)
"""Types of what is recorded as a parameter."""


def as_recorded(value: Any) -> Any:
    """A field's value in JSON's types: the name of an Enum's member, the text of a path.

    `check` accepts it as the value that it stands for.
    """
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    return tuple(map(as_recorded, value)) if isinstance(value, tuple) else value


def check_all(instance: Any) -> None:
    """Check every field of a dataclass instance; call it from `__post_init__`."""
    for field in dataclasses.fields(instance):
        value = check(type(instance), field.name, getattr(instance, field.name))
        object.__setattr__(instance, field.name, value)


@functools.cache
def _hints(owner: type) -> dict[str, Any]:
    hints = typing.get_type_hints(owner, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(owner)}


def _checked(name: str, hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _checked(name, arguments[0], value)
        for mark in arguments[1:]:
            _check_mark(name, mark, value)
        return value
    if origin is Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise BadRequest(
                f"{name}: {value!r} is not allowed. {nearest(str(value), map(str, arguments))}"
            )
        return value
    if origin is tuple:
        return _checked_tuple(name, hint, arguments, value)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        inner, *others = (argument for argument in arguments if argument is not types.NoneType)
        if others:
            raise BadRequest(f"{name}: expected one type, or one type and None, got {hint}.")
        return _checked(name, inner, value)
    return _typed(name, hint, value)


def _checked_tuple(name: str, hint: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(value, (tuple, list)):
        raise BadRequest(f"{name}: {value!r} is not a tuple.")
    kinds = arguments[:1] * len(value) if arguments[1:] == (Ellipsis,) else arguments
    if len(kinds) != len(value):
        raise BadRequest(f"{name}: expected {len(kinds)} values, got {len(value)}: {value!r}.")
    return tuple(_checked(name, kind, entry) for kind, entry in zip(kinds, value, strict=True))


def _typed(name: str, kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if isinstance(value, kind):
            return value
        if value not in list(kind.__members__):
            raise BadRequest(
                f"{name}: {value!r} is not allowed. {nearest(str(value), kind.__members__)}"
            )
        return kind[value]
    if isinstance(kind, type) and issubclass(kind, PurePath):
        if not isinstance(value, (str, PurePath)):
            raise BadRequest(f"{name}: {value!r} is not a path.")
        return kind(value)
    if kind is bool or kind is str:
        if not isinstance(value, kind):
            raise BadRequest(f"{name}: {value!r} is not a {kind.__name__}.")
        if isinstance(value, str):
            check_text(name, value)
    elif kind is int or kind is float:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        try:
            if not is_number:
                raise TypeError
            value = operator.index(value) if kind is int else float(value)
        except (TypeError, ValueError, OverflowError):
            expected = "a whole number" if kind is int else "a number"
            raise BadRequest(f"{name}: {value!r} is not {expected}.") from None
        if kind is float and not math.isfinite(value):
            raise BadRequest(f"{name}: {value!r} is not a finite number.")
    return value


def check_text(name: str, text: str) -> None:
    """Refuse text that screens and databases alter: control characters, broken Unicode.

    Raises:
        BadRequest: The text has such a character, or is too long.
    """
    if len(text) > LONGEST_TEXT:
        raise BadRequest(
            f"{name}: expected at most {LONGEST_TEXT:,} characters, got {len(text):,}."
        )
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise BadRequest(f"{name}: {text!r} contains the control character {character!r}.")


def _check_mark(name: str, mark: Any, value: Any) -> None:
    """Check a value against a mark beside its field's type; marks of other meaning are ignored."""
    if isinstance(mark, (Interval, Length)):
        if value is not None and (allowed := mark.broken(value)):
            raise BadRequest(f"{name}: {value!r} is not allowed, it must be {allowed}.")
    elif type(mark).__module__.partition(".")[0] == "annotated_types":
        raise BadRequest(f"{name}: {mark} is not checked here; use the bounds of `harness`.")
