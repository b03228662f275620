"""Checks of a user's own arrays: what is wrong is named before anything is trained on it."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.base.errors import BadRequest

Array = NDArray[Any]


def checked_pair(name: str, part: str, pair: Any) -> tuple[Array, Array]:
    """Inputs and labels of one part of a data set, as arrays of the types that are trained on.

    Inputs become uint8, float32 or int64. Labels become int64 for classes, float32 for numbers.

    Args:
        name: of the data set, for the messages.
        part: `train` or `test`.
        pair: inputs (n, ...) and labels, (n,) for classes and (n, ...) for numbers.

    Raises:
        BadRequest: it is no such pair. The message names what is wrong.
    """
    where = f"{name}, {part}"
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        count = f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
        raise BadRequest(f"{where}: expected (inputs, labels), got a {type(pair).__name__}{count}.")
    inputs, labels = (
        _array(f"{where} {what}", given) for what, given in zip(_WHAT, pair, strict=True)
    )
    for what, values in zip(_WHAT, (inputs, labels), strict=True):
        _check_memory(f"{where} {what}", values)
    if not inputs.ndim or not labels.ndim or not len(inputs):
        raise BadRequest(f"{where}: there are no examples.")
    if len(inputs) != len(labels):
        raise BadRequest(f"{where}: {len(inputs):,} inputs do not match {len(labels):,} labels.")
    return _as_inputs(f"{where} inputs", inputs), _as_labels(f"{where} labels", labels)


def checked_classes(name: str, labels: Array, classes: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes of the training labels; without `classes`, their numbers.

    Raises:
        BadRequest: a label has no class, a class has no example, or names are repeated.
    """
    if classes is None:
        classes = [str(number) for number in range(int(labels.max()) + 1)]
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise BadRequest(f"{name}: classes: expected a list of names, got {classes!r}.")
    names = tuple(str(given) for given in classes)
    if len(names) < 2:
        raise BadRequest(f"{name}: there is one class alone: nothing can be learned from it.")
    for number, text in enumerate(names):
        if text in names[:number]:
            raise BadRequest(f"{name}: two classes are called {text!r}.")
    check_labels(f"{name}, train", labels, names)
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all():
        empty = int(np.flatnonzero(counts == 0)[0])
        title = "" if names[empty] == str(empty) else f" ({names[empty]!r})"
        raise BadRequest(f"{name}, train: class {empty}{title} has no examples.")
    return names


def check_labels(where: str, labels: Array, classes: Sequence[str]) -> None:
    """Check that each label is the number of a class.

    Raises:
        BadRequest: a label is out of range.
    """
    for extreme in (int(labels.min()), int(labels.max())):
        if not 0 <= extreme < len(classes):
            position = int(np.flatnonzero(labels == extreme)[0])
            raise BadRequest(
                f"{where} labels: {extreme} (example {position}) is not in 0..{len(classes) - 1}: "
                f"there are {len(classes)} classes."
            )


def check_same_kind(name: str, train: tuple[Array, Array], test: tuple[Array, Array]) -> None:
    """Check that the test examples are of the same shape and type as the training examples.

    Raises:
        BadRequest: they are not.
    """
    for what, ours, theirs in zip(_WHAT, train, test, strict=True):
        if ours.shape[1:] != theirs.shape[1:]:
            raise BadRequest(
                f"{name}: the {what} of train are {shape_text(ours.shape[1:])}, those of test "
                f"{shape_text(theirs.shape[1:])}: they must be of one shape."
            )
        if ours.dtype != theirs.dtype:
            raise BadRequest(
                f"{name}: the {what} of train are {ours.dtype}, those of test {theirs.dtype}: they "
                "must be of one type."
            )


def shape_text(shape: Sequence[int]) -> str:
    """The shape of an example in words.

    >>> shape_text((3, 32, 32)), shape_text((10,)), shape_text(())
    ('3x32x32', '10 values', 'single numbers')
    """
    if len(shape) == 1:
        return f"{shape[0]:,} values"
    return "x".join(map(str, shape)) or "single numbers"


_WHAT = ("inputs", "labels")


def _array(where: str, given: Any) -> Array:
    if isinstance(given, torch.Tensor):
        return np.asarray(given.detach().cpu().numpy())
    try:
        return np.asarray(given)
    except ValueError:
        raise BadRequest(f"{where}: the examples are of different shapes.") from None


def _check_memory(where: str, values: Array) -> None:
    """Refuse values that are not in memory yet, or must be converted, and do not fit there.

    Raises:
        BadRequest: they do not.
    """
    import psutil  # a training on other data does without it

    if values.dtype.kind not in "iufb":
        return
    trained_on = 1 if values.dtype == np.uint8 else 4 if values.dtype.kind == "f" else 8
    lies_there = values.flags.c_contiguous and values.itemsize == trained_on
    needed, free = values.size * trained_on, psutil.virtual_memory().available
    if needed > free and not (lies_there and not _is_mapped(values)):
        raise BadRequest(
            f"{where}: {len(values):,} examples of {shape_text(values.shape[1:])} take "
            f"{needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB of memory are free."
        )


def _is_mapped(values: Any) -> bool:
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap):
            return True
        values = values.base
    return isinstance(values, mmap.mmap)


def _as_inputs(where: str, inputs: Array) -> Array:
    if inputs.dtype == np.uint8 or inputs.dtype == np.int64:
        return inputs
    if inputs.dtype.kind in "iu":
        return inputs.astype(np.int64)
    return _as_floats(where, inputs)


def _as_labels(where: str, labels: Array) -> Array:
    if labels.dtype.kind in "US" or (labels.dtype == object and isinstance(labels.flat[0], str)):
        raise BadRequest(
            f"{where}: expected numbers, got words such as {str(labels.flat[0])!r}. Number them: "
            "classes, labels = np.unique(words, return_inverse=True)."
        )
    if labels.dtype.kind not in "iub":
        return _as_floats(where, labels)
    if labels.ndim > 1:
        way_out = (
            "A column: give labels[:, 0]."
            if labels.shape[1:] == (1,)
            else "One-hot labels: give labels.argmax(1). Several numbers to predict: give them as "
            "float32."
        )
        raise BadRequest(
            f"{where}: expected one whole number for each example, got "
            f"{shape_text(labels.shape[1:])}. {way_out}"
        )
    return labels.astype(np.int64)


def _as_floats(where: str, values: Array) -> Array:
    if values.dtype.kind not in "fb":
        raise BadRequest(
            f"{where}: numbers are expected, got {values.dtype}"
            + (f", such as {values.flat[0]!r}." if values.size else ".")
        )
    with np.errstate(over="ignore"):  # what overflows is not finite, which is told below
        floats = values.astype(np.float32, copy=False)
    wrong = ~np.isfinite(floats)
    if wrong.any():
        position = int(np.argwhere(wrong)[0][0])
        value = values[wrong][0]
        raise BadRequest(f"{where}: example {position} holds {value}: it must be a finite number.")
    return floats
