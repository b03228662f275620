"""Results on single examples survive their encoding, and damage is noticed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from harness.base.example_results import ExampleResults

EXAMPLES = hashlib.sha256(b"examples").hexdigest()
BITS = arrays.arrays(bool, st.integers(0, 40))
FLOATS = arrays.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


@given(BITS | FLOATS)
def test_results_are_what_they_were(values: NDArray[Any]) -> None:
    encoded = ExampleResults(values, EXAMPLES).encode()
    found = ExampleResults.decode(encoded, EXAMPLES)
    assert found.examples == EXAMPLES
    assert found.values.dtype == values.dtype
    np.testing.assert_array_equal(found.values, values)


@given(BITS | FLOATS, st.data())
def test_a_damaged_byte_is_noticed(values: NDArray[Any], data: st.DataObject) -> None:
    encoded = bytearray(ExampleResults(values, EXAMPLES).encode())
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="single examples"):
        ExampleResults.decode(bytes(encoded))


@given(BITS | FLOATS, st.data())
def test_a_cut_or_lengthened_file_is_noticed(values: NDArray[Any], data: st.DataObject) -> None:
    encoded = ExampleResults(values, EXAMPLES).encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for other in (encoded[:cut], encoded + b"\0", encoded + encoded):
        with pytest.raises(ValueError, match="single examples"):
            ExampleResults.decode(other)


def test_ten_thousand_results_take_a_bit_each() -> None:
    right = np.random.default_rng(0).random(10_000) < 0.85
    assert len(ExampleResults(right, EXAMPLES).encode()) < 10_000 / 8 + 64
    assert len(ExampleResults(right.astype(float), EXAMPLES).encode()) < 4 * 10_000 + 64


def test_other_numbers_are_kept_in_single_precision() -> None:
    for values in ([1, 2, 3], np.array([0.1, 1e300, np.nan])):
        found = ExampleResults(np.array(values), EXAMPLES).values
        assert found.dtype == np.float32
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(found, np.array(values, np.float32))


def test_results_on_other_examples_are_refused() -> None:
    encoded = ExampleResults(np.ones(3, bool), EXAMPLES).encode()
    other = hashlib.sha256(b"others").hexdigest()
    with pytest.raises(ValueError, match=f"other examples: {EXAMPLES[:12]}, not {other[:12]}"):
        ExampleResults.decode(encoded, other)


@pytest.mark.parametrize(
    ("values", "examples", "words"),
    [
        (np.ones((2, 2)), EXAMPLES, r"\(m,\)"),
        (np.float64(1), EXAMPLES, r"\(m,\)"),
        (np.array(["a"]), EXAMPLES, "numbers"),
        (np.array([1j]), EXAMPLES, "numbers"),
        (np.ones(2), "abc", "SHA-256"),
        (np.ones(2), "g" * 64, "SHA-256"),
        (np.ones(2), EXAMPLES.upper(), "SHA-256"),
    ],
)
def test_what_is_no_result_is_refused(values: Any, examples: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExampleResults(values, examples)
