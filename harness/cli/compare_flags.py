"""The flags of the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from harness.analysis.query import Query
from harness.base import fields
from harness.base.errors import BadRequest
from harness.base.fields import Count


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Which runs to compare, and how to show them."""

    run_ids: Positional[tuple[str, ...]] = ()
    """Runs or groups, by the first letters of their ids; by default all runs."""
    experiment: str | None = None
    """Only runs of this experiment."""
    study: str | None = None
    """The trials and confirmations of this study, instead of runs."""
    filter: str = ""
    """Only runs that meet this condition in MLflow's filter language: "params.lr = '0.1'"."""
    dataset: str | None = None
    """Only runs on this data set."""
    mixed_data: bool = False
    """Compare runs even if they saw different images."""

    against: str | None = None
    """Run, group or name of a row to compare all others with, seed by seed."""
    sort: str | None = None
    """Column to sort by, the best or the smallest first; by default the accuracy."""
    reverse: bool = False
    """Reverse the order."""
    limit: Annotated[int, Count] | None = None
    """The most rows to print and to write; by default 100 are printed and all are written."""
    columns: str | None = None
    """Columns to show, separated by commas: lr,test/accuracy,best.test/accuracy,git_commit."""

    markdown: bool = False
    """Print the table in Markdown."""
    csv: Path | None = None
    """Write all columns of the rows to this file."""
    json: Path | None = None
    """Write all columns of the rows to this file, as a list of objects."""
    curves: Path | None = None
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
