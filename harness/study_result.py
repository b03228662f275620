"""What a study came to: its answer in words and numbers, and the files that hold it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from harness.launcher import Confirmation
from harness.search import claim, figures
from harness.search.claim import Counts, Search
from harness.search.study import describe_space, edge_warnings
from harness.statistics import Summary, paired_difference
from harness.tracking import provenance


@dataclass(frozen=True)
class StudyResult:
    """The answer of a study.

    Attributes:
        confirmed: the best configuration and the defaults on the test set; empty where the study
            was not confirmed.
    """

    search: Search
    stored: optuna.Study
    counts: Counts
    best: FrozenTrial
    confirmed: dict[str, Confirmation]
    device: str

    @property
    def difference(self) -> Summary | None:
        """Test accuracy of the best minus the defaults, seed by seed."""
        if len(self.confirmed) < 2:
            return None
        best, defaults = (
            list(confirmation.accuracies.values()) for confirmation in self.confirmed.values()
        )
        return paired_difference(best, defaults)

    @property
    def verdict(self) -> str:
        """One sentence: whether the best configuration beats the defaults."""
        difference = self.difference
        if difference is None:
            return "The defaults were the best configuration found; there is nothing to compare."
        points = f"{100 * difference.mean:+.2f} points"
        if difference.n == 1:
            return f"{points} of test accuracy on one seed (n = 1): it cannot be told apart."
        interval = f"95% interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
        basis = f"{points} of test accuracy ({interval}, n = {difference.n} paired seeds)"
        if difference.low > 0:
            return f"The best configuration beats the defaults by {basis}: the difference stands."
        if difference.high < 0:
            return f"The defaults beat the best configuration, {basis}: the difference stands."
        return (
            f"The best configuration differs from the defaults by {basis}: it cannot be told apart."
        )

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before believing the answer."""
        found = edge_warnings(self.search.study, self.best.params)
        names = list(self.search.study.space)
        if len(names) > 1 and not figures.importances(self.stored, names):
            found.append(
                f"fewer than {figures.FEWEST_FOR_IMPORTANCES} completed trials: "
                "no importances are shown"
            )
        return found

    def lines(self) -> list[str]:
        """The answer in Markdown, short enough for a screen."""
        counts, best = self.counts, self.best
        assert best.value is not None
        parameters = ", ".join(
            f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}"
            for name, value in best.params.items()
        )
        lines = [
            f"**{self.search.study_name}**: {counts.finished} trials finished "
            f"({counts.completed} completed, {counts.pruned} pruned, {counts.diverged} diverged, "
            f"{counts.failed} failed), {self.device}",
            "",
            f"Best: trial {best.number}, {parameters}; validation accuracy {best.value:.4f} "
            "(n = 1 seed, selected as the highest)",
        ]
        if self.confirmed:
            lines += ["", "| configuration | test accuracy | n seeds |", "| --- | --- | --- |"]
            for config, confirmation in self.confirmed.items():
                lines.append(f"| {config} | {confirmation.summary} | {confirmation.summary.n} |")
            lines += ["", f"**{self.verdict}**"]
        lines += [f"\nWarning: {warning}." for warning in self.warnings]
        return lines

    def description(self) -> str:
        """The whole result as the run's Markdown description."""
        space = [f"- {name}: {words}" for name, words in describe_space(self.search.study).items()]
        names = list(self.search.study.space)
        ranked = figures.importances(self.stored, names)
        importance = [f"- {name}: {value:.2f}" for name, value in ranked.items()]
        return "\n".join(
            [
                *self.lines(),
                "",
                "Searched:",
                "",
                *(space or ["- suggest(trial)"]),
                *(["", "Importances (PED-ANOVA):", "", *importance] if importance else []),
                "",
                f"Sampler {self.search.sampler} (seed {self.search.sampler_seed}), "
                f"pruner {self.search.pruner}. Repeat it with:",
                "",
                f"    {provenance.command(tuple(sys.argv))}",
            ]
        )

    def metrics(self) -> dict[str, float]:
        """The answer as metrics of the study's run."""
        assert self.best.value is not None
        metrics = {"study/best_value": self.best.value}
        for config, confirmation in self.confirmed.items():
            metrics |= confirmation.summary.metrics(f"confirm/{config}/test_accuracy")
        if self.difference:
            metrics |= self.difference.metrics("confirm/difference")
        return metrics

    def files(self) -> dict[str, bytes]:
        """Figures, `trials.csv` and `study.json`, by their path among the artifacts."""
        confirmed = {name: c.accuracies for name, c in self.confirmed.items()}
        names = list(self.search.study.space)
        summary: dict[str, Any] = {
            "study": self.search.study_name,
            "declaration": self.search.study.declaration(),
            "n_trials": self.search.n_trials,
            "sampler": self.search.sampler,
            "sampler_seed": self.search.sampler_seed,
            "pruner": self.search.pruner,
            "counts": vars(self.counts),
            "best": {
                "trial": self.best.number,
                "parameters": self.best.params,
                "validation_accuracy": self.best.value,
            },
            "confirmed": {
                name: {"fields": c.fields, "test_accuracy": c.accuracies}
                for name, c in self.confirmed.items()
            },
            "verdict": self.verdict if self.confirmed else "not confirmed",
        }
        return {
            **figures.draw(self.stored, names, confirmed),
            "trials.csv": figures.trials_csv(self.stored).encode(),
            "study.json": (json.dumps(summary, indent=2) + "\n").encode(),
        }


def result(
    search: Search, stored: optuna.Study, confirmed: dict[str, Confirmation], device: str
) -> StudyResult | None:
    """The result of a stored study; None where no trial was completed."""
    best = claim.best(stored)
    if best is None:
        return None
    counts = claim.count(stored.get_trials(deepcopy=False))
    return StudyResult(search, stored, counts, best, confirmed, device)
