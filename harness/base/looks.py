"""Looking several times: seeds are added in steps, and each look spends a part of alpha."""

from __future__ import annotations

from harness.base.verdict import ALPHA, Spread

LOOKS = {5: 0.0005, 10: 0.014, 20: 0.045}
"""The alpha at each number of seeds at which the results may be looked at.

Whoever looks three times at 0.05 and stops when pleased is wrong in 12% of the cases. These are
O'Brien's and Fleming's boundaries for three looks (A multiple testing procedure for clinical
trials, 1979), with which it is 5.4%, because the looks are not equally far apart.
"""


def alpha_of_look(n: int) -> float:
    """The alpha of the verdict after n seeds.

    Raises:
        ValueError: n is not the number of seeds of a look.
    """
    if n not in LOOKS:
        raise ValueError(f"looks are after {_LOOKS_TEXT} seeds, not after {n}")
    return LOOKS[n]


def next_look(spread: Spread, half_width: float, alpha: float = ALPHA) -> int | None:
    """The number of seeds at the next look; None if there is no need for one, or none is left.

    Args:
        spread: after the seeds so far.
        half_width: that is wanted, from seeds alone: no seed removes what examples make.
        alpha: at which the width is measured.
    """
    reached = spread.over_seeds().half_width(alpha)
    if reached is None or reached <= half_width:
        return None
    return next((n for n in LOOKS if n > spread.n), None)


def is_out_of_reach(spread: Spread, half_width: float, alpha: float = ALPHA) -> bool:
    """Whether no number of seeds makes the whole interval so narrow."""
    return spread.seeds_for(half_width, alpha) is None


_LOOKS_TEXT = ", ".join(map(str, LOOKS))
