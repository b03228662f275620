"""The network of a recorded run: loaded again, or the start of another training."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from harness.base.errors import BadRequest, RunFailed
from harness.execution.recorded_code import with_fields
from harness.tracking.reader import Reader, open_reader
from harness.tracking.schema import StoredRun
from harness.tracking.selection import trained_run
from harness.training.experiment import Experiment, load_experiment
from harness.training.misfits import built_network

WEIGHTS = "weights.pt"
"""The artifact of a run that holds its network's parameters and buffers."""

Weights = dict[str, torch.Tensor]


def load_model(run: Any) -> nn.Module:
    """The network of a run, in evaluation mode and on the CPU.

    It is built from the experiment's file, and its weights are read from the record; nothing is
    unpickled.

    Args:
        run: its id, whole or its first letters; `last` for the latest completed run; a row of
            `harness.runs()`; or what `harness.run_experiment` returned.

    Raises:
        BadRequest: there is no such run, it has no weights, or the experiment has changed so that
            they do not fit any more.
        RunFailed: the weights are damaged.
    """
    reader = open_reader()
    identity = getattr(run, "run_id", run)  # a result, or a row of a frame
    if not isinstance(identity, str):
        raise BadRequest(f"run: expected the id of a run, got {identity!r}.")
    stored = trained_run(identity, reader)
    weights = read_weights(stored, reader)
    network = _built(_experiment_of(stored))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise BadRequest(
            f"load_model: the weights of {stored.run_id[:8]} do not fit the network of "
            f"{stored.experiment} as it is now ({reason}). Its commit: {stored.tag('git_commit')}"
        ) from None
    return network.eval()


def read_weights(stored: StoredRun, reader: Reader) -> Weights:
    """The parameters and buffers that a run has kept.

    Raises:
        BadRequest: it has kept none: only completed runs do, and no trials or confirmations.
        RunFailed: they are damaged.
    """
    content = reader.artifact(stored.run_id, WEIGHTS)
    if content is None:
        kind = f"{stored.outcome} {stored.kind}".strip() or "foreign run"
        raise BadRequest(
            f"run: {stored.run_id[:8]} ({kind}) has kept no weights; completed runs do."
        )
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load gives up on damaged content in a dozen ways
        reason = str(error).partition("\n")[0]
        raise RunFailed(f"{WEIGHTS} of {stored.run_id[:8]} is damaged: {reason}") from None
    assert isinstance(weights, dict)
    return weights


def encoded_weights(weights: Mapping[str, Any]) -> bytes:
    """Weights, and what modules keep beside them, as the content of the artifact."""
    buffer = io.BytesIO()
    torch.save(
        {
            name: value.detach().cpu() if isinstance(value, torch.Tensor) else value
            for name, value in weights.items()
        },
        buffer,
    )
    return buffer.getvalue()


def fitting(experiment: Experiment, weights: Weights, run_id: str) -> tuple[Weights, list[str]]:
    """The weights of another run that fit an experiment's network, and what they leave out.

    Returns:
        The tensors whose names and shapes are those of the network, and a phrase for each of its
        other tensors, which keep their own initial values.

    Raises:
        BadRequest: none fits.
    """
    state = _built(experiment).state_dict()
    own = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    kept = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and own[name].shape == tensor.shape
    }
    if not kept:
        raise BadRequest(
            f"start_from: no layer of {run_id[:8]} fits the network of {experiment.name}."
        )
    others = [
        f"{name} ({_shape(weights[name])} there, {_shape(tensor)} here)"
        if name in weights
        else f"{name} (not there)"
        for name, tensor in own.items()
        if name not in kept
    ]
    return kept, others


def starting_weights(stored: StoredRun, experiment: Experiment, reader: Reader) -> Weights:
    """The weights that a recorded run started from; empty if its network was new.

    Raises:
        BadRequest: the run that they came from is not there any more.
    """
    run_id = stored.settings.get("start_from")
    if not run_id:
        return {}
    weights, _ = fitting(experiment, read_weights(reader.run(run_id), reader), run_id)
    return weights


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _built(experiment: Experiment) -> nn.Module:
    """The experiment's network; the caller's random generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        return built_network(experiment)


def _experiment_of(stored: StoredRun) -> Experiment:
    """The experiment of a run: one defined in this process, as in a notebook, or in its file."""
    found = (kind for kind in _defined(Experiment) if kind.name == stored.experiment)
    kind = next(found, None)
    if kind is None and (origin := stored.tag("code_origin")):
        raise BadRequest(
            f"load_model: {stored.experiment} is in no file of experiments/ but in {origin}. "
            f'Define it first, or use mlflow.pytorch.load_model("runs:/{stored.run_id}/model").'
        )
    return with_fields(stored, kind or load_experiment(stored.experiment), "load_model")


def _defined(kind: Any) -> Iterator[type[Experiment]]:
    for sub in reversed(kind.__subclasses__()):  # the latest definition of a cell counts
        yield from _defined(sub)
        if sub.__module__ == "__main__":
            yield sub
