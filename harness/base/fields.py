"""One rule for every field: its type and bounds stand beside it and are checked here alone.

A field is declared as `lr: Annotated[float, Positive] = 0.1`. The command line, Python
(`Baseline(lr=-1)`) and the bounds of a study's search space all come through `check`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import operator
import types
import typing
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen
from annotated_types import Interval as Interval

from harness.base.errors import BadRequest, nearest

Positive = Gt(0)
NonNegative = Ge(0)
Count = (Ge(1), Le(2**31 - 1))
"""What every library takes as a number of things."""
Threads = (Ge(0), Le(1024))
Seed = (Ge(0), Le(2**63 - 1))
"""What `torch.manual_seed` takes without wrapping around."""
Fraction = (Ge(0), Lt(1))
Name = (MinLen(1), MaxLen(250))
"""What every record store takes as a name."""

LONGEST_TEXT = 5000
"""Characters of a text; record stores cut longer ones off in silence."""

_COMPARISONS = {
    Gt: ("gt", operator.gt, "greater than {}"),
    Ge: ("ge", operator.ge, "at least {}"),
    Lt: ("lt", operator.lt, "less than {}"),
    Le: ("le", operator.le, "at most {}"),
    MinLen: ("min_length", lambda text, n: len(text) >= n, "at least {} characters long"),
    MaxLen: ("max_length", lambda text, n: len(text) <= n, "at most {} characters long"),
}


def check(owner: type, name: str, value: Any) -> Any:
    """The value as the field `name` of the dataclass `owner` stores it.

    An integer is accepted where a float is asked for (and becomes one), never the reverse.

    Raises:
        BadRequest: there is no such field, or the value has the wrong type or is out of bounds.
    """
    hints = _hints(owner)
    if name not in hints:
        raise BadRequest(f"{owner.__name__} has no field {name!r}. {nearest(name, hints)}")
    return _checked(name, hints[name], value)


def check_declaration(owner: type) -> None:
    """Make sure that the types beside the fields of a dataclass can be read.

    Raises:
        BadRequest: one of them names what is not there.
    """
    try:
        _hints(owner)
    except Exception as error:  # an annotation may hold any expression
        raise BadRequest(f"{owner.__name__}: the type of a field cannot be read: {error}") from None


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
        for holds, limit, words in _bounds(arguments[1:]):
            if value is not None and not holds(value, limit):
                allowed = words.format(limit)
                raise BadRequest(f"{name}: {value!r} is not allowed, it must be {allowed}.")
        return value
    if origin is Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise BadRequest(
                f"{name}: {value!r} is not allowed. {nearest(str(value), map(str, arguments))}"
            )
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        inner, *others = (argument for argument in arguments if argument is not types.NoneType)
        if others:
            raise BadRequest(f"{name}: a field has one type, or that or None, not {hint}.")
        return _checked(name, inner, value)
    return _typed(name, hint, value)


def _typed(name: str, kind: Any, value: Any) -> Any:
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
    """Refuse what no screen and no database shows as it is: control characters, broken Unicode.

    Raises:
        BadRequest: the text holds one, or is too long.
    """
    if len(text) > LONGEST_TEXT:
        raise BadRequest(
            f"{name}: a text of {len(text):,} characters is too long, at most {LONGEST_TEXT:,}."
        )
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise BadRequest(f"{name}: {text!r} holds the control character {character!r}.")


def _bounds(marks: Iterable[Any]) -> Iterator[tuple[Callable[[Any, Any], bool], Any, str]]:
    """The bounds among a field's marks: the comparison that must hold, its limit, its words."""
    for mark in marks:
        if isinstance(mark, (tuple, GroupedMetadata)):
            yield from _bounds(mark)
        elif isinstance(mark, BaseMetadata):
            if type(mark) not in _COMPARISONS:
                known = ", ".join(kind.__name__ for kind in _COMPARISONS)
                raise BadRequest(f"{mark} is not a bound that a field can have: {known}.")
            attribute, holds, words = _COMPARISONS[type(mark)]
            yield holds, getattr(mark, attribute), words
