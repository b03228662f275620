"""Run a study: search hyperparameters, then confirm the best on the test set.

python -m harness.study NAME [--field value ...]
python -m harness.study lr_search --n-trials 20 --num-epochs 3
python -m harness.study NAME --help
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import door, project
from harness.errors import BadRequest, nearest
from harness.run import listing

if TYPE_CHECKING:
    import optuna
    import torch

    from harness.runner import Prepared
    from harness.search.claim import Search
    from harness.search.study import Study
    from harness.study_settings import StudySettings
    from harness.tracking.process import RecorderProcess
    from harness.training.device import Execution
    from harness.training.experiment import Experiment

USAGE = """\
usage: python -m harness.study NAME [--field value ...]
       python -m harness.study NAME --help    fields of its experiment, and the other flags

Runs a study, or goes on with it, and records every trial in MLflow."""


def main(arguments: Sequence[str]) -> int:
    """Run the study that the first argument names; return the exit status."""
    known = project.names("studies")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\n\nstudies:\n{listing(known, 'studies')}")
        return 0
    name, *rest = arguments
    if name not in known:
        raise BadRequest(f"There is no study {name!r}. {nearest(name, known)}")
    from harness.search.study import load_study
    from harness.study_settings import StudySettings

    declared = load_study(name)
    experiment, settings = door.parse(
        declared.experiment,
        StudySettings,
        rest,
        f"python -m harness.study {name}",
        project.summary(project.ROOT / "studies" / f"{name}.py"),
    )
    return _run(name, declared, experiment, settings)


def _run(name: str, declared: Study, experiment: Experiment, settings: StudySettings) -> int:
    import dataclasses

    from harness import launcher, runner, study_screen
    from harness.interruption import Interrupted, deferred
    from harness.search import claim
    from harness.search.storage import lock, open_storage, storage_url
    from harness.study_result import result
    from harness.tracking.process import RecorderProcess
    from harness.training.data import data_root, open_dataset

    execution, workers = settings.execution_and_workers()
    device = execution.apply()
    root = data_root(settings.data_root)
    size = len(open_dataset(experiment.dataset, root, with_test=False).train)
    if not experiment.validation_size:
        experiment = dataclasses.replace(experiment, validation_size=max(1, size // 6))
    study = dataclasses.replace(declared, experiment=experiment)
    search = claim.Search(
        study=study,
        study_name=settings.study_name or name,
        url=storage_url(settings.storage),
        n_trials=settings.n_trials or study.n_trials,
        sampler=settings.sampler,
        pruner=settings.pruner,
        sampler_seed=settings.sampler_seed,
    )
    if settings.sampler == "grid" and not study.space:
        raise BadRequest("sampler: a grid needs a study with a space, this one has suggest(trial).")
    prepared = runner.prepare(experiment, settings.data_root, with_test=False)
    if settings.dry_run:
        print(study_screen.dry_run(search, prepared, execution, device, workers))
        return 0
    storage = open_storage(search.url)
    stored = launcher.open_study(search, storage, settings.warm_start)
    with lock(search.url):
        claim.repair(stored)
        if settings.release_trials:
            print(f"{claim.release(stored)} trials of other machines released")
    done = claim.count(stored.get_trials(deepcopy=False)).finished >= search.n_trials
    if done:
        print(f"{search.study_name} has finished its {search.n_trials} trials.")
    recorder = RecorderProcess(shares=workers)
    recorder.prepare()
    watcher = study_screen.watcher(settings.quiet)
    try:
        run_id = _study_run(search, stored, prepared, execution, device, recorder)
        study_launcher = launcher.Launcher(name, search, storage, recorder, run_id, watcher)
        try:
            folder = str(root)
            study_launcher.start_workers(execution, folder, settings.timeout)
            if not done:
                study_launcher.search_trials()
            stored = search.stored(storage)
            best = claim.best(stored)
            confirmed = {}
            counts = study_launcher.counts()
            if best and counts.finished >= search.n_trials and settings.confirm_seeds:
                configs = {"best": study.suggested(best)}
                if configs["best"] != experiment:
                    configs["defaults"] = experiment
                seeds = range(experiment.seed, experiment.seed + settings.confirm_seeds)
                confirmed = study_launcher.confirm(configs, seeds)
        except Interrupted:
            study_launcher.close()
            recorder.finish(run_id, "interrupted")
            print(f"Stopped. Go on with the same command: {study_screen.again()}")
            raise
        except BaseException as error:
            study_launcher.close()
            recorder.finish(run_id, "failed", tags={"reason": str(error)})
            raise
        with deferred():
            study_launcher.close()
            ended = result(search, search.stored(storage), confirmed, str(device))
            if ended is None:
                recorder.finish(run_id, "failed", tags={"reason": "no trial was completed"})
                print("No trial was completed.")
                return 1
            recorder.artifacts(run_id, ended.files())
            finished = ended.counts.finished >= search.n_trials
            recorder.finish(
                run_id,
                "completed" if finished else "interrupted",
                epoch=ended.counts.finished,
                metrics=ended.metrics(),
                tags={f"best.{key}": str(value) for key, value in ended.best.params.items()},
                description=ended.description(),
            )
        print("\n".join(ended.lines()).replace("**", ""))
        print(f"run {run_id}\nsee it with: python -m harness.ui")
        return 0
    finally:
        recorder.close()


def _study_run(
    search: Search,
    stored: optuna.Study,
    prepared: Prepared,
    execution: Execution,
    device: torch.device,
    recorder: RecorderProcess,
) -> str:
    """The study's own run: the one that the stored study names, or a new one."""
    from harness import runner

    known: str | None = stored.user_attrs.get("run_id")
    if known:
        recorder.resume(known)
        return known
    labels = runner.Labels(kind="study", name=search.study_name, experiment=search.study_name)
    record = runner.run_record(prepared, execution, device, labels)
    run_id = recorder.start(record)
    stored.set_user_attr("run_id", run_id)
    return run_id


if __name__ == "__main__":
    door.enter(main)
