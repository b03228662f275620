"""The flags of the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from harness.analysis.query import Query
from harness.base import fields
from harness.base.errors import BadRequest
from harness.base.fields import Count
from harness.cli.shared_flags import default


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Which runs to compare, and how to show them."""

    run_ids: Annotated[Positional[tuple[str, ...]], arg(metavar="[RUN ...]")] = ()
    """Runs or groups, by the first letters of their ids."""
    experiment: Annotated[str | None, default("NAME", "all")] = None
    """Only runs of this experiment."""
    study: Annotated[str | None, default("NAME", "none")] = None
    """The trials and confirmations of this study, instead of runs."""
    filter: str = ""
    """Only runs that meet this condition in MLflow's filter language: "params.lr = '0.1'"."""
    dataset: Annotated[str | None, default("NAME", "all")] = None
    """Only runs on this data set."""
    mixed_data: bool = False
    """Compare runs even if they saw different examples."""

    against: Annotated[str | None, default("RUN", "no comparison")] = None
    """Run, group or name of a row to compare all others with, seed by seed."""
    sort: Annotated[str | None, default("COLUMN", "the objective")] = None
    """Column to sort by, the best or the smallest first."""
    reverse: bool = False
    """Reverse the order."""
    limit: Annotated[Annotated[int, Count] | None, default("INT", "100 to print, all to write")] = (
        None
    )
    """The most rows to print and to write."""
    columns: Annotated[str | None, default("NAMES", "what differs, and the results")] = None
    """Columns to show, separated by commas: lr,test/accuracy,best.test/accuracy,git_commit."""

    markdown: bool = False
    """Print the table in Markdown."""
    csv: Annotated[Path | None, default("FILE", "none")] = None
    """Write all columns of the rows to this file."""
    json: Annotated[Path | None, default("FILE", "none")] = None
    """Write all columns of the rows to this file, as a list of objects."""
    curves: Annotated[Path | None, default("FILE", "none")] = None
    """Draw the learning curves into this file (.png, .svg or .pdf)."""

    def __post_init__(self) -> None:
        fields.check(type(self), "limit", self.limit)
        if self.experiment and self.study:
            raise BadRequest("Choose --experiment or --study, not both.")
        if self.curves and self.curves.suffix not in (".png", ".svg", ".pdf"):
            raise BadRequest(f"curves: {self.curves} does not end in .png, .svg or .pdf.")

    @property
    def column_names(self) -> list[str]:
        """The columns that are asked for; empty for the usual ones."""
        return [name.strip() for name in (self.columns or "").split(",") if name.strip()]

    @property
    def query(self) -> Query:
        """Which runs to compare."""
        return Query(self.run_ids, self.experiment, self.study, self.filter, self.dataset)
