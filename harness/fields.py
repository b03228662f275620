"""One rule for every field: its type and bounds stand beside it and are checked here alone.

A field is declared as `lr: Annotated[float, Positive] = 0.1`. The command line, Python
(`Baseline(lr=-1)`) and the bounds of a study's search space all come through `check`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import types
import typing
from typing import Annotated, Any, Literal

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt

from harness.errors import BadRequest, nearest

Positive = Gt(0)
NonNegative = Ge(0)
Count = Ge(1)
Seed = (Ge(0), Le(2**63 - 1))
"""What `torch.manual_seed` takes without wrapping around."""
Fraction = (Ge(0), Lt(1))

_COMPARISONS = {
    Gt: ("gt", operator.gt, "greater than"),
    Ge: ("ge", operator.ge, "at least"),
    Lt: ("lt", operator.lt, "less than"),
    Le: ("le", operator.le, "at most"),
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
        if value is not None:
            for mark in arguments[1:]:
                for bound in mark if isinstance(mark, tuple) else (mark,):
                    if isinstance(bound, BaseMetadata):
                        _check_bound(name, bound, value, arguments[1:])
        return value
    if origin is Literal:
        if value not in arguments:
            raise BadRequest(
                f"{name}: {value!r} is not one of {', '.join(map(str, arguments))}. "
                + nearest(str(value), map(str, arguments))
            )
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return _checked(name, inner, value)
    return _typed(name, hint, value)


def _typed(name: str, kind: Any, value: Any) -> Any:
    if kind is bool or kind is str:
        if not isinstance(value, kind):
            raise BadRequest(f"{name}: {value!r} is not a {kind.__name__}.")
    elif kind is int or kind is float:
        try:
            if isinstance(value, (bool, str)):
                raise TypeError
            value = operator.index(value) if kind is int else float(value)
        except (TypeError, ValueError, OverflowError):
            expected = "a whole number" if kind is int else "a number"
            raise BadRequest(f"{name}: {value!r} is not {expected}.") from None
        if kind is float and not math.isfinite(value):
            raise BadRequest(f"{name}: {value!r} is not a finite number.")
    return value


def _check_bound(name: str, bound: BaseMetadata, value: Any, marks: tuple[Any, ...]) -> None:
    attribute, holds, _ = _COMPARISONS[type(bound)]  # type: ignore[index]
    if not holds(value, getattr(bound, attribute)):
        allowed = [b for mark in marks for b in (mark if isinstance(mark, tuple) else (mark,))]
        text = " and ".join(_text(b) for b in allowed if isinstance(b, BaseMetadata))
        raise BadRequest(f"{name}: {value!r} is not allowed, it must be {text}.")


def _text(bound: BaseMetadata) -> str:
    attribute, _, words = _COMPARISONS[type(bound)]  # type: ignore[index]
    return f"{words} {getattr(bound, attribute)}"
