"""The answer of a study: in words, in numbers, and as files."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.command_line import command_text
from harness.base.formatting import value_text
from harness.base.signals import deferred
from harness.base.statistics import Summary, paired_difference
from harness.figures import style
from harness.reporting.building import study_page
from harness.search import FrozenTrial, trial_queue
from harness.search.confirmations import Confirmation, confirmations
from harness.search.importance import FEWEST_TRIALS, importances
from harness.search.results import searched_parameters, study_summary, trial_rows, trials_csv
from harness.search.storage import StoredStudy
from harness.search.study import describe_space, edge_warnings
from harness.search.trial_queue import Counts, Search
from harness.tracking.messages import EndRun, Recorder, SaveArtifacts
from harness.training.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StudyAnswer:
    """The answer of a study.

    Attributes:
        confirmed: the best configuration and the defaults on the test set; empty if the study was
            not confirmed.
    """

    search: Search
    stored: StoredStudy
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
            return (
                f"The best configuration differs from the defaults by {points} of test accuracy "
                "on one seed (n = 1): whether it is better cannot be told."
            )
        interval = f"95% interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
        basis = f"{points} of test accuracy ({interval}, n = {difference.n} paired seeds)"
        if difference.low > 0:
            return f"The best configuration beats the defaults by {basis}: the difference stands."
        if difference.high < 0:
            return (
                f"The best configuration differs from the defaults by {basis}: "
                "on the test set the difference is reversed, the defaults are better."
            )
        return (
            f"The best configuration differs from the defaults by {basis}: "
            "whether it is better cannot be told."
        )

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before trusting the answer."""
        found = edge_warnings(self.best)
        if len(self.best.params) > 1 and not importances(self.stored):
            found.append(f"fewer than {FEWEST_TRIALS} completed trials: no importances are shown")
        for config, confirmation in self.confirmed.items():
            if diverged := confirmation.diverged:
                found.append(
                    f"{config} diverged with {len(diverged)} of {confirmation.summary.n} seeds, "
                    "which count as a test accuracy of 0"
                )
        return found

    @property
    def _state(self) -> list[int]:
        return [self.counts.finished, *(c.summary.n for c in self.confirmed.values())]

    @property
    def is_reported(self) -> bool:
        """Whether the study's run has this answer."""
        return bool(self.stored.user_attrs.get("reported") == self._state)

    def report(self, recorder: Recorder) -> None:
        """End the study's run with this answer; as `interrupted` if trials are left."""
        run_id = self.stored.user_attrs["run_id"]
        with deferred():
            page = study_page(self.stored, self.answer(), self._figures)
            recorder.send(SaveArtifacts(run_id, self.files() | {"report.html": page}))
            recorder.send(
                EndRun(
                    run_id,
                    "completed" if self.is_finished else "interrupted",
                    epoch=self.counts.finished,
                    metrics=self.metrics(),
                    tags={f"best.{name}": str(value) for name, value in self.best.params.items()},
                    description=self.description(),
                )
            )
            self.stored.set_user_attr("reported", self._state)

    @property
    def is_finished(self) -> bool:
        """Whether the budget is spent."""
        return self.counts.finished >= self.search.n_trials

    def lines(self) -> list[str]:
        """The answer in Markdown, short enough for a screen."""
        counts, best = self.counts, self.best
        assert best.value is not None
        parameters = ", ".join(
            f"{name} = {value_text(value)}" for name, value in best.params.items()
        )
        lines = [
            f"**{self.search.study_name}**: {counts.finished} of {self.search.n_trials} trials "
            f"finished ({counts}), {self.device}",
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

    def on_screen(self) -> str:
        """The answer without Markdown, and where to see more."""
        text = "\n".join(self.lines()).replace("**", "")
        run_id = self.stored.user_attrs["run_id"]
        return f"{text}\n\nrun {run_id}\nsee it with: python -m harness.ui"

    def description(self) -> str:
        """The answer as the description of the study's run, in Markdown."""
        space = [f"- {name}: {words}" for name, words in describe_space(self.search.study).items()]
        ranked = importances(self.stored)
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
                f"    {command_text(sys.argv)}",
            ]
        )

    def metrics(self) -> dict[str, float]:
        """The answer as metrics of the study's run."""
        metrics: dict[str, float] = {}
        for config, confirmation in self.confirmed.items():
            metrics |= confirmation.summary.metrics(f"confirm/{config}/test_accuracy")
        if self.difference:
            metrics |= self.difference.metrics("confirm/difference")
        return metrics

    def answer(self) -> dict[str, Any]:
        """The whole result as JSON holds it, the file `study.json`."""
        difference = vars(self.difference) if self.difference else {}
        plain: dict[str, Any] = study_summary(self.stored) | {
            "n_trials": self.search.n_trials,
            "device": self.device,
            "command": command_text(sys.argv),
            "confirmed": {
                name: {
                    "fields": c.fields,
                    "test_accuracy": {str(seed): value for seed, value in c.accuracies.items()},
                    "diverged": c.diverged,
                    "run_ids": c.run_ids,
                    "seconds": c.seconds,
                }
                for name, c in self.confirmed.items()
            },
            "difference": {
                name: value if math.isfinite(value) else None for name, value in difference.items()
            },
            "verdict": self.verdict if self.confirmed else "not confirmed",
            "warnings": self.warnings,
        }
        return plain

    def files(self) -> dict[str, bytes]:
        """Figures, `trials.csv` and `study.json`, by their path among the artifacts."""
        return {
            **{f"figures/{name}.png": style.png(figure) for name, figure in self._figures.items()},
            "trials.csv": trials_csv(trial_rows(self.stored)).encode(),
            "study.json": (json.dumps(self.answer(), indent=2) + "\n").encode(),
        }

    @functools.cached_property
    def _figures(self) -> dict[str, Figure]:
        # Imported here because Matplotlib takes a second, and only the end of a study needs it.
        from harness.figures.study_figures import draw_study

        return draw_study(
            self.search.study_name,
            trial_rows(self.stored),
            searched_parameters(self.stored),
            self.search.study.defaults(),
            {name: list(c.accuracies.values()) for name, c in self.confirmed.items()},
            importances=importances(self.stored),
        )


def study_answer(
    search: Search, stored: StoredStudy, seeds: Sequence[int], device: str
) -> StudyAnswer | None:
    """The answer of a stored study; None if no trial was completed."""
    best = trial_queue.best(stored)
    if best is None:
        return None
    confirmed = confirmations(stored, configurations(search, best), seeds)
    counts = trial_queue.count(stored.get_trials(deepcopy=False))
    return StudyAnswer(search, stored, counts, best, confirmed, device)


def configurations(search: Search, best: FrozenTrial) -> dict[str, Experiment]:
    """The configurations to confirm: the best one, and the defaults if they differ."""
    configs = {"best": search.study.suggested(best), "defaults": search.study.experiment}
    if configs["best"] == configs["defaults"]:
        del configs["defaults"]
    return configs
