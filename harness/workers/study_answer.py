"""The answer of a study: in words, in numbers, and as files."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.differences import CALLED, between, results_of
from harness.base.command_line import command_text
from harness.base.errors import BadRequest, RunFailed
from harness.base.formatting import assignments, html_facts, metric_text, number_of, value_text
from harness.base.goals import Goal
from harness.base.signals import deferred
from harness.base.trials import confirmed_metric, metric_in_words
from harness.base.verdict import Verdict
from harness.figures import style
from harness.reporting.building import study_page
from harness.search import FrozenTrial, trial_queue
from harness.search.confirmations import Confirmation, confirmations
from harness.search.importance import FEWEST_TRIALS, importances
from harness.search.results import searched_parameters, study_summary, trial_rows, trials_csv
from harness.search.samplers import sampler_text
from harness.search.storage import StoredStudy
from harness.search.study import describe_space, edge_warnings
from harness.search.trial_queue import Counts, Search
from harness.tracking.messages import EndRun, Recorder, SaveArtifacts
from harness.tracking.reader import open_reader
from harness.training.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.base.verdict import Results


@dataclass(frozen=True, repr=False)
class StudyAnswer:
    """The answer of a study.

    Attributes:
        chosen: the best trial, or the Pareto front of a study with several objectives.
        confirmed: the chosen configurations and the defaults on the test set; empty if the study
            was not confirmed.
        command: the command line that goes on with the study; empty for one of a notebook.
    """

    search: Search
    stored: StoredStudy
    counts: Counts
    chosen: list[FrozenTrial]
    confirmed: dict[str, Confirmation]
    device: str
    command: tuple[str, ...] = ()

    def __repr__(self) -> str:
        words = ", ".join(f"{name}: {text}" for name, text in self._words().items())
        return f"<study {self.search.study_name}: {words}>"

    def _repr_html_(self) -> str:
        return html_facts(f"study {self.search.study_name}", self._words())

    def _words(self) -> dict[str, str]:
        best = self.chosen[0]
        trials = f"{self.counts.finished} of {self.search.n_trials} trials"
        if len(self.goals) > 1:
            return {"trials": trials, "front": number_of(len(self.chosen), "trial")}
        metric, value = metric_in_words(self.goals[0].metric), metric_text(best.values[0])
        words = {
            "trials": trials,
            "best": f"trial {best.number} ({assignments(best.params)})",
            "selected by": f"{metric} {value} (n = 1 seed)",
        }
        for config, found in self.confirmed.items():
            name = self.metrics_confirmed[0]
            words[f"{config}, confirmed"] = f"{metric_in_words(name)} {found.summary(name)}"
        return words | ({"verdict": self.verdict} if self.confirmed else {})

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What was optimised."""
        return self.search.study.goals

    @property
    def metrics_confirmed(self) -> list[str]:
        """The metrics on the test set that confirm the objectives."""
        return [confirmed_metric(goal.metric) for goal in self.goals]

    @functools.cached_property
    def difference(self) -> Verdict | None:
        """The verdict on the best against the defaults, in the confirmed metric.

        None with several objectives, and if there is nothing to compare.
        """
        if len(self.confirmed) < 2 or len(self.goals) > 1:
            return None
        (metric,) = self.metrics_confirmed
        return between(
            *(_results(found, metric) for found in self.confirmed.values()),
            metric=metric,
            best=self.goals[0].best,
            names=(CALLED["best"], CALLED["defaults"]),
        )

    @property
    def verdict(self) -> str:
        """One sentence: whether the best configuration beats the defaults."""
        if len(self.goals) > 1:
            metrics = " and ".join(metric_in_words(goal.metric) for goal in self.goals)
            return (
                f"No trial beats the {number_of(len(self.chosen), 'trial')} of the front in "
                f"{metrics} at once: which one is best is for you to choose."
            )
        difference = self.difference
        if difference is None and self._lacks_defaults:
            return "The defaults timed out as a trial: there is nothing to compare."
        if difference is None:
            return "The defaults were the best configuration found; there is nothing to compare."
        return str(difference)

    @property
    def _lacks_defaults(self) -> bool:
        return trial_queue.have_defaults_timed_out(self.stored)

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before trusting the answer."""
        found = [*dict.fromkeys(words for best in self.chosen for words in edge_warnings(best))]
        if len(self.chosen[0].params) > 1 and not importances(self.stored):
            found.append(f"fewer than {FEWEST_TRIALS} completed trials: no importances are shown")
        if self.confirmed and self._lacks_defaults:
            found.append("the defaults timed out as a trial, and were not confirmed")
        for config, confirmation in self.confirmed.items():
            ends = {"diverged": confirmation.diverged, "collapsed": confirmation.collapsed}
            found += [
                f"{config} {outcome} with {len(seeds)} of {confirmation.n} seeds"
                for outcome, seeds in ends.items()
                if seeds
            ]
        return found

    @property
    def _state(self) -> list[int]:
        return [self.counts.finished, *(found.n for found in self.confirmed.values())]

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
                    tags=self._tags(),
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
        counts = self.counts
        lines = [
            f"**{self.search.study_name}**: {counts.finished} of {self.search.n_trials} trials "
            f"finished ({counts}), {self.device}",
            "",
            *(self._best() if len(self.goals) == 1 else self._front()),
        ]
        if self.confirmed:
            names = list(map(metric_in_words, self.metrics_confirmed))
            lines += ["", *_header("configuration", *names, "n seeds")]
            for config, confirmation in self.confirmed.items():
                summaries = [str(confirmation.summary(name)) for name in self.metrics_confirmed]
                lines.append(f"| {' | '.join([config, *summaries, str(confirmation.n)])} |")
        if self.confirmed or len(self.goals) > 1:
            lines += ["", f"**{self.verdict}**"]
        lines += [f"\nWarning: {warning}." for warning in self.warnings]
        return lines

    def _best(self) -> list[str]:
        best, goal = self.chosen[0], self.goals[0]
        parameters = ", ".join(f"{name} = {value_text(v)}" for name, v in best.params.items())
        extreme = "highest" if goal.direction == "maximize" else "lowest"
        return [
            f"Best: trial {best.number}, {parameters}; {metric_in_words(goal.metric)} "
            f"{metric_text(best.values[0])} (n = 1 seed, selected as the {extreme})"
        ]

    def _front(self) -> list[str]:
        words = [f"{metric_in_words(goal.metric)} ({goal.direction}d)" for goal in self.goals]
        return [
            "The front: the trials that no other one beats in all objectives (n = 1 seed each)",
            "",
            *_header("trial", *words, "values"),
            *(
                f"| {trial.number} | {' | '.join(map(metric_text, trial.values))} | "
                f"{assignments(trial.params)} |"
                for trial in self.chosen
            ),
        ]

    def _tags(self) -> dict[str, str]:
        limit = {"trial_timeout": str(self.search.trial_timeout)}
        if len(self.goals) > 1:
            return limit | {"front": " ".join(str(trial.number) for trial in self.chosen)}
        best = self.chosen[0].params
        return limit | {f"best.{name}": str(value) for name, value in best.items()}

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
                *space,
                *(["", "Importances (PED-ANOVA):", "", *importance] if importance else []),
                "",
                f"Sampler {sampler_text(self.search.sampler)} (seed {self.search.sampler_seed}), "
                f"pruner {self.search.pruner}. Repeat it with:",
                "",
                f"    {command_text(self.command)}",
            ]
        )

    def metrics(self) -> dict[str, float]:
        """The answer as metrics of the study's run."""
        metrics: dict[str, float] = {}
        for config, confirmation in self.confirmed.items():
            for name in self.metrics_confirmed:
                label = f"confirm/{config.replace(' ', '_')}/{name.replace('/', '_')}"
                metrics |= confirmation.summary(name).metrics(label)
        if self.difference:
            known = self.difference.record()
            values = {name: known[name] for name in ("n", "low", "high", "p")}
            metrics |= {
                f"confirm/difference/{name}": float(value)
                for name, value in (values | {"mean": known["difference"]}).items()
                if value is not None
            }
        return metrics

    def answer(self) -> dict[str, Any]:
        """The whole result as JSON holds it, the file `study.json`."""
        plain: dict[str, Any] = study_summary(self.stored) | {
            "n_trials": self.search.n_trials,
            "device": self.device,
            "command": command_text(self.command),
            "confirmed": {
                name: {
                    "fields": c.fields,
                    "values": {
                        metric: {str(seed): _finite(value) for seed, value in values.items()}
                        for metric, values in c.values.items()
                    },
                    "diverged": c.diverged,
                    "collapsed": list(c.collapsed),
                    "run_ids": c.run_ids,
                    "seconds": c.seconds,
                }
                for name, c in self.confirmed.items()
            },
            "difference": self.difference.record() if self.difference else {},
            "verdict": self.verdict if self.confirmed else "not confirmed",
            "warnings": self.warnings,
        }
        return plain

    def files(self) -> dict[str, bytes]:
        """Figures, `trials.csv` and `study.json`, by their path among the artifacts."""
        return {
            **style.png_files(self._figures),
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
            {
                config: {metric: list(values.values()) for metric, values in found.values.items()}
                for config, found in self.confirmed.items()
            },
            {goal.metric: goal.direction for goal in self.goals},
            [trial.number for trial in self.chosen],
            importances=importances(self.stored),
        )


def study_answer(
    search: Search,
    stored: StoredStudy,
    seeds: Sequence[int],
    device: str,
    command: tuple[str, ...] = (),
) -> StudyAnswer | None:
    """The answer of a stored study; None if no trial was completed."""
    chosen = trial_queue.chosen(stored)
    if not chosen:
        return None
    confirmed = confirmations(stored, configurations(search, stored, chosen), seeds)
    counts = trial_queue.count(stored.get_trials(deepcopy=False))
    return StudyAnswer(search, stored, counts, chosen, confirmed, device, command)


def configurations(
    search: Search, stored: StoredStudy, chosen: Sequence[FrozenTrial]
) -> dict[str, Experiment]:
    """The configurations to confirm: the chosen ones, and the defaults if they are not among them.

    The best one is called so; those of a front are called by their trials. Defaults that took too
    long as a trial would take longer still as a confirmation, maybe forever.
    """
    several = len(search.study.goals) > 1
    configs = {
        f"trial {trial.number}" if several else "best": search.study.suggested(trial)
        for trial in chosen
    }
    is_chosen = search.study.experiment in configs.values()
    if not is_chosen and not trial_queue.have_defaults_timed_out(stored):
        configs["defaults"] = search.study.experiment
    # Without validation examples nothing can stop a training early.
    return {name: dataclasses.replace(config, patience=0) for name, config in configs.items()}


def _results(found: Confirmation, metric: str) -> dict[int, Results | None]:
    """The results of a confirmation by seed: on single examples as far as its runs have them."""
    reader = open_reader()
    results: dict[int, Results | None] = {}
    for run_id, (seed, value) in zip(found.run_ids, found.values[metric].items(), strict=True):
        try:
            results[seed] = results_of(reader.run(run_id), metric, reader)
        except (BadRequest, RunFailed):  # it was deleted, or a tracking server is away
            results[seed] = value if math.isfinite(value) else None
    return results


def _header(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]


def _finite(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None
