"""Write a report of a study or an experiment, one HTML page that needs no other file.

python -m harness.report NAME [--out report.html]
python -m harness.report lr_search
python -m harness.report baseline --out baseline.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base import project, signals
from harness.base.errors import BadRequest, nearest
from harness.cli import flags

if TYPE_CHECKING:
    from harness.search.storage import StoredStudy
    from harness.tracking.reader import Reader

USAGE = """\
usage: python -m harness.report STUDY|EXPERIMENT [--out report.html]
       python -m harness.report NAME --help   all flags

Writes one HTML page: the answer with its uncertainty, curves, every run in a table that sorts, the
checklist of reproducibility, and the commands that repeat it."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Where the report goes, and where the trials come from."""

    out: Path = Path("report.html")
    """File to write; one that exists is replaced."""
    storage: str | None = None
    """URL of the Optuna storage of a study that was run with one; mlruns/optuna.db unless given."""


def main(arguments: Sequence[str]) -> int:
    """Report on the study or experiment that the first argument names; return the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    name, *rest = arguments
    settings: ReportSettings = flags.parse_settings(
        ReportSettings, rest, "python -m harness.report NAME", "Write a report as an HTML page."
    )
    _check(settings.out)
    from harness.tracking.reader import open_reader

    reader = open_reader()
    kinds = {run.kind for run in reader.runs(name)} if name in reader.experiments() else set()
    if not kinds:
        raise _nothing(name, reader.experiments())
    if "study" in kinds:
        return _study(name, settings, reader)
    return _experiment(name, settings, reader)


def _study(name: str, settings: ReportSettings, reader: Reader) -> int:
    # MLflow takes as long to import as what follows: the recorder's process does it meanwhile.
    from harness.tracking.recorder_process import RecorderProcess

    with closing(RecorderProcess()) as recorder:
        recorder.prepare()
        with signals.deferred():
            from harness.base.privacy import mask
            from harness.figures import study_figures
            from harness.reporting import study_report
            from harness.search import storage

        url = storage.storage_url(settings.storage)
        if name not in storage.stored_names(url):
            raise BadRequest(
                f"storage: the trials of the study {name!r} are not in {mask(url)}; "
                "give the --storage that it was run with."
            )
        stored = storage.load_stored(url, name)
        answer = _answer(stored, reader)
        confirmed = {
            config: list(confirmation["test_accuracy"].values())
            for config, confirmation in answer["confirmed"].items()
        }
        drawn = study_figures.draw(stored, answer["defaults"], confirmed)
        page = study_report.report(stored, answer, reader, drawn).encode()
        _write(settings.out, page)
        run_id = stored.user_attrs["run_id"]
        recorder.artifacts(run_id, {"report.html": page})
    print(f"{settings.out}: the report of the study {name}, kept as report.html with its run, too.")
    print(f"run {run_id}")
    return 0


def _answer(stored: StoredStudy, reader: Reader) -> dict[str, Any]:
    """What the study's run holds as its answer; what the trials alone tell where it has none yet.

    Raises:
        BadRequest: no trial was completed.
    """
    from harness.search.summary import summary

    known = summary(stored)
    if known["best"] is None:
        raise BadRequest(
            f"No trial of the study {stored.study_name!r} has been completed yet: "
            "there is nothing to report."
        )
    run_id = stored.user_attrs["run_id"]
    recorded = reader.artifact(run_id, "study.json")
    return {
        **known,
        **{"n_trials": None, "confirmed": {}, "difference": {}, "command": None},
        "device": reader.run(run_id).tag("device"),
        **(json.loads(recorded) if recorded else {}),
    }


def _experiment(name: str, settings: ReportSettings, reader: Reader) -> int:
    with signals.deferred():
        from harness.analysis.query import Query, select
        from harness.reporting import experiment_report

    runs = select(Query(experiment=name), reader)
    path = project.ROOT / "experiments" / f"{name}.py"
    question = project.summary(path) if path.is_file() else ""
    page = experiment_report.report(name, question, runs, reader)
    _write(settings.out, page.encode())
    print(f"{settings.out}: the report of the experiment {name}.")
    return 0


def _nothing(name: str, recorded: Sequence[str]) -> BadRequest:
    """What to say of a name without runs."""
    for folder, command in (("experiments", "run"), ("studies", "study")):
        if name in project.names(folder):
            return BadRequest(
                f"{name} has no runs yet. Make some: python -m harness.{command} {name}"
            )
    # MLflow creates an experiment of the name Default by itself.
    others = [known for known in recorded if known != "Default"]
    return BadRequest(f"There are no runs of {name!r}. {nearest(name, others)}")


def _check(out: Path) -> None:
    """Make sure that the file can be written, before anything is computed."""
    if out.is_dir():
        raise BadRequest(f"out: {out} is a folder; name a file, like {out / 'report.html'}.")
    if not out.parent.is_dir():
        raise BadRequest(f"out: there is no folder {out.parent}.")


def _write(out: Path, page: bytes) -> None:
    """Write the file whole or not at all.

    Raises:
        BadRequest: it cannot be written.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_bytes(page)
        beside.replace(out)
    except OSError as error:
        raise BadRequest(f"out: {out} cannot be written: {error.strerror}.") from None
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    flags.enter(main)
