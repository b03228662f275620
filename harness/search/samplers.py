"""Samplers choose the next trial; pruners stop trials early."""

from __future__ import annotations

import importlib.util
import itertools
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, Trial

from harness.base.errors import BadRequest
from harness.search.study import SamplerFactory, Study, digest_of_source

CONSTRAINT = "is finite"
"""The constraint of a trial, by its name in the storage: violated above 0."""

NEED_NO_CONSTRAINT = (TPESampler, RandomSampler, QMCSampler, CmaEsSampler)

HAS_CONSTRAINTS = hasattr(Trial, "set_constraint")  # from Optuna 5 on

SamplerName = Literal["tpe", "gp", "cmaes", "random", "qmc", "grid"]
PrunerName = Literal["median", "hyperband", "none"]


def make_sampler(name: SamplerName | SamplerFactory, seed: int, draws: int) -> BaseSampler:
    """The sampler for the next trial, after `draws` earlier ones.

    Its seed derives from the number of earlier trials. So workers draw different trials, and a
    study that continues draws as if it had never stopped. A grid queues its trials; see `grid`.
    """
    derived = zlib.crc32(f"{seed} {draws}".encode())
    if callable(name):
        return name(derived)
    # Optuna 4 asks for the constraints of a trial; see `constrain`.
    constrained: dict[str, Any] = {} if HAS_CONSTRAINTS else {"constraints_func": _constraints}
    if name in ("tpe", "gp"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if name == "gp":
                return GPSampler(seed=derived, **constrained)
            # The defaults of Optuna 5, for Optuna 4 as well.
            return TPESampler(seed=derived, multivariate=True, constant_liar=True, **constrained)
    if name == "cmaes":
        return CmaEsSampler(seed=derived, warn_independent_sampling=False)
    if name == "qmc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _Sequence(seed, draws)
    return RandomSampler(seed=derived)


def make_pruner(name: PrunerName, num_epochs: int) -> BasePruner:
    """The pruner, which sees the objective after every epoch.

    Hyperband keeps one in four at each of its rungs, as in the experiments of Li et al., "A System
    for Massively Parallel Hyperparameter Tuning" (2020).
    """
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, num_epochs // 5))
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=num_epochs, reduction_factor=4)
    return NopPruner()


def grid(study: Study) -> Iterator[dict[str, Any]]:
    """The points of finer and finer grids over a study's space, each point once.

    All choices and the ends of all ranges come first, then the midpoints, then the midpoints
    between those. The points run out if the space has only choices and whole numbers.
    """
    seen: set[tuple[Any, ...]] = set()
    for level in itertools.count():
        before = len(seen)
        for point in itertools.product(*(_ticks(d, 2**level) for d in study.space.values())):
            if point not in seen:
                seen.add(point)
                yield dict(zip(study.space, point, strict=True))
        if len(seen) == before:
            return


def sampler_text(sampler: SamplerName | SamplerFactory) -> str:
    """A sampler's name; of a study's own one, a digest of its source."""
    return digest_of_source(sampler) if callable(sampler) else sampler


def check_sampler(name: SamplerName | SamplerFactory) -> None:
    """Check that a sampler's package is installed.

    Raises:
        BadRequest: it is not.
    """
    if name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise BadRequest("sampler: cmaes needs the package cmaes: pip install cmaes")


def constrain(trial: Trial, sampler: BaseSampler, *, is_feasible: bool) -> None:
    """Tell a sampler whether a trial that has ended is one that it may come near to.

    To most samplers a trial without a constraint is feasible; others, such as Gaussian processes,
    compare the constraints of all trials.
    """
    if is_feasible and isinstance(sampler, NEED_NO_CONSTRAINT):
        return
    if HAS_CONSTRAINTS:
        trial.set_constraint(CONSTRAINT, 0.0 if is_feasible else 1.0)
    else:
        trial.set_user_attr(CONSTRAINT, 0.0 if is_feasible else 1.0)


def _constraints(trial: FrozenTrial) -> tuple[float]:
    return (trial.user_attrs.get(CONSTRAINT, 0.0),)


class _Sequence(QMCSampler):
    """A scrambled Sobol sequence whose position is the number of earlier draws.

    Optuna's own sequence counts its calls, so it skips a point for each interrupted trial.
    """

    def __init__(self, seed: int, draws: int) -> None:
        super().__init__(
            seed=seed,
            scramble=True,
            # For parameters that only some trials have; the sequence does not cover them.
            independent_sampler=make_sampler("random", seed, draws),
            warn_independent_sampling=False,
        )
        self._draws = draws

    def _find_sample_id(self, study: optuna.Study, search_space: object = None) -> int:
        return self._draws


def _ticks(distribution: BaseDistribution, parts: int) -> list[Any]:
    """The ends of equal parts of a range, on its scale; all choices of a categorical."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    ticks = []
    for part in range(parts + 1):
        share = part / parts
        value = low * (high / low) ** share if distribution.log else low + (high - low) * share
        if step:
            value = low + round((value - low) / step) * step
        value = min(max(value, low), high)
        ticks.append(round(value) if isinstance(distribution, IntDistribution) else float(value))
    return ticks
