"""Looking several times costs alpha, and ends when the seeds' part is narrow enough."""

from __future__ import annotations

import pytest
from simulate_verdict import false_looks

from harness.base.looks import LOOKS, alpha_of_look, is_out_of_reach, next_look
from harness.base.verdict import Spread


def test_each_look_has_its_alpha() -> None:
    assert [alpha_of_look(n) for n in (5, 10, 20)] == [0.0005, 0.014, 0.045]


@pytest.mark.parametrize("n", [0, 3, 6, 40, -5])
def test_there_is_no_look_in_between(n: int) -> None:
    with pytest.raises(ValueError, match=f"looks are after 5, 10, 20 seeds, not after {n}"):
        alpha_of_look(n)


def test_stopping_when_pleased_is_wrong_more_often_than_the_alphas_allow() -> None:
    assert false_looks(dict.fromkeys(LOOKS, 0.05), 1000) > 0.09
    assert false_looks(LOOKS, 1000) < 0.075


@pytest.mark.parametrize(
    ("n", "standard_error", "then"),
    [(5, 0.1, None), (5, 0.2, 10), (10, 0.2, 20), (10, 0.13, None), (20, 0.2, None), (3, 1.0, 5)],
)
def test_seeds_are_added_until_their_part_is_narrow_enough(
    n: int, standard_error: float, then: int | None
) -> None:
    spread = Spread(n, 10_000, n * standard_error**2, examples=10_000 * 0.5**2)
    assert next_look(spread, 0.3) == then


def test_a_width_below_the_part_of_the_examples_is_out_of_reach() -> None:
    spread = Spread(5, 10_000, seeds=5 * 0.046**2, examples=10_000 * 0.154**2)
    assert is_out_of_reach(spread, 0.30)
    assert not is_out_of_reach(spread, 0.31)
    assert not is_out_of_reach(spread.over_seeds(), 0.001)
