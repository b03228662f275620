"""Where studies are kept: Optuna's storage, its sampler and pruner, and the one lock around it."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    GridSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import RDBStorage

from harness.errors import RunFailed
from harness.privacy import mask
from harness.project import MLRUNS, ROOT
from harness.search.study import Study

SamplerName = Literal["tpe", "gp", "random", "qmc", "grid"]
PrunerName = Literal["median", "hyperband", "none"]

optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage_url(url: str | None) -> str:
    """The given URL of an Optuna storage, or the SQLite file `mlruns/optuna.db`."""
    return url or f"sqlite:///{MLRUNS / 'optuna.db'}"


def lock(url: str, purpose: str = "claims") -> FileLock:
    """The lock by which this machine's processes take turns at something on a storage."""
    database = _sqlite_path(url)
    folder = database.parent if database else MLRUNS
    name = hashlib.sha256(f"{url} {purpose}".encode()).hexdigest()[:16]
    return FileLock(folder / f".optuna-{name}.lock")


def open_storage(url: str) -> RDBStorage:
    """Open a storage, creating its tables on first use.

    Raises:
        RunFailed: it cannot be opened.
    """
    database = _sqlite_path(url)
    try:
        (database.parent if database else MLRUNS).mkdir(parents=True, exist_ok=True)
        with lock(url):
            options: dict[str, Any] = {"connect_args": {"timeout": 60}} if database else {}
            storage = RDBStorage(url, engine_kwargs=options)
            if database:
                with closing(sqlite3.connect(database)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
        return storage
    except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise their own
        reason = mask(str(error)).partition("\n")[0]
        raise RunFailed(f"The storage {mask(url)} cannot be opened: {reason}") from None


def make_sampler(name: SamplerName, seed: int, draws: int, study: Study) -> BaseSampler:
    """The sampler for the next draw after `draws` earlier ones.

    Its seed derives from how many trials came before, so that workers draw differently and a study
    that is continued draws as if it had never stopped. Grid and quasi-Monte Carlo keep one seed:
    they are sequences, and find their place in the stored study.
    """
    derived = zlib.crc32(f"{seed} {draws}".encode())
    if name == "tpe":
        return TPESampler(seed=derived)
    if name == "gp":
        return GPSampler(seed=derived)
    if name == "random":
        return RandomSampler(seed=derived)
    if name == "qmc":
        return QMCSampler(seed=seed, scramble=True)
    return GridSampler(grid(study), seed=seed)


def make_pruner(name: PrunerName, num_epochs: int) -> BasePruner:
    """The pruner: it sees the validation accuracy of every epoch."""
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, num_epochs // 5))
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=num_epochs)
    return NopPruner()


def grid(study: Study, points: int = 5) -> dict[str, list[Any]]:
    """The values of a grid search: all choices, and `points` values spread over each range."""
    values: dict[str, list[Any]] = {}
    for name, distribution in study.space.items():
        if isinstance(distribution, optuna.distributions.CategoricalDistribution):
            values[name] = list(distribution.choices)
            continue
        low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
        log = distribution.log  # type: ignore[attr-defined]
        spread = [i / (points - 1) for i in range(points)]
        chosen = [low * (high / low) ** s if log else low + (high - low) * s for s in spread]
        chosen = [min(max(value, low), high) for value in chosen]
        if isinstance(distribution, optuna.distributions.IntDistribution):
            chosen = sorted({round(value) for value in chosen})
        values[name] = chosen
    return values


def _sqlite_path(url: str) -> Path | None:
    scheme, separator, path = url.partition(":///")
    return ROOT / path if separator and scheme.startswith("sqlite") else None
