"""How values are written."""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.base.formatting import (
    assignments,
    csv_text,
    duration,
    harmless,
    metric_text,
    number_of,
    value_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (0.30000000000000004, "0.3"),
        (1e-05, "1e-05"),
        (0.0512345678, "0.0512346"),
        (1000000, "1000000"),
        (10**30, str(10**30)),
        (True, "True"),
        (None, "None"),
        ("1.10", "1.10"),
        (math.inf, "inf"),
    ],
)
def test_a_value_is_written_shortly(value: Any, text: str) -> None:
    assert value_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-5, 1e5))
@example(0.05132, 1.00001)
def test_values_that_differ_within_six_digits_are_written_differently(
    value: float, factor: float
) -> None:
    other = value * factor
    differ = f"{value:.5e}" != f"{other:.5e}"
    if math.isfinite(other):
        assert (value_text(value) != value_text(other)) == differ


def test_names_stand_with_their_values() -> None:
    assert assignments({"lr": 0.0512345678, "n": 64}) == "lr=0.0512346 n=64"
    assert assignments({"lr": 0.5, "n": 64}, ", ") == "lr=0.5, n=64"
    assert assignments({}) == ""


def test_numbers_of_things_metrics_and_seconds() -> None:
    assert [number_of(n, "epoch") for n in (0, 1, 2000)] == ["0 epochs", "1 epoch", "2,000 epochs"]
    assert [metric_text(value) for value in (0.98765, -3.0, 203530.0, None)] == [
        *("0.9877", "-3.0000", "203,530", "none")
    ]
    assert [duration(seconds) for seconds in (0.04, 59.96, 60, 3599, 4210)] == [
        "0.0 s",
        "60.0 s",
        "1 min",
        "1 h 0 min",
        "1 h 10 min",
    ]


CELLS = st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"))).filter(
    lambda text: unicodedata.normalize("NFKC", text.lstrip()[:1]) not in set("=+-@")
)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=4))
def test_a_table_is_read_back_from_csv(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(["a", "b, c"], rows), newline="")))
    assert read == [["a", "b, c"], *rows]


def test_a_missing_value_is_an_empty_cell() -> None:
    assert csv_text(["a", "b"], [(None, 0.25)]) == "a,b\n,0.25\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lr=0.1 Größe 数字 👩‍🔬", "lr=0.1 Größe 数字 👩‍🔬"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nerror: b\r\t", "a\\nerror: b\\r\\t"),
        ("a\x9b2J\x85\u2028", "a\\x9b2J\\x85\\u2028"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\ufeff\u200b\udc80", "\\ufeff\\u200b\\udc80"),
    ],
)
def test_a_name_does_nothing_but_show_itself(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(f"{text}\n", lines=True).count("\n") == 1 + text.count("\n")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-x", "'-x"),
        ("  +x", "'  +x"),
        ("\t=1", "\\t=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-1", "-1"),
        ("+2.5", "+2.5"),
        (-0.5, "-0.5"),
        ("a\nb", "a\\nb"),
        (None, ""),
    ],
)
def test_a_spreadsheet_computes_no_text_of_a_table(value: object, cell: str) -> None:
    written = csv_text(["x", "=y"], [[value, 1]])
    assert list(csv.reader(io.StringIO(written))) == [["x", "'=y"], [cell, "1"]]
