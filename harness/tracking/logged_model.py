"""The logged model: an exported inference graph that `mlflow.pytorch.load_model` reads.

MLflow's own `pytorch.log_model` would import torch here and export the network a second time. The
training process has already exported it, so only MLflow's description is added to the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.models import Model, ModelSignature
from mlflow.models.utils import _save_example
from mlflow.types import Schema, TensorSpec

from harness.base.metric_names import AVERAGE, JUDGES, averages
from harness.tracking.schema import ModelRecord

DESCRIPTION = """\
{weights}Signature: inputs, {inputs}, to {outputs}.

Load it in the project's root, with MLflow's tracking URI set to the store:

    mlflow.pytorch.load_model("{uri}")
"""
"""The text on the model's page, in Markdown."""


def log_model(client: MlflowClient, run_id: str, record: ModelRecord) -> str:
    """Log the model under the name `model` and return its id; repeated, it completes the first."""
    run = client.get_run(run_id)
    begun = client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run_id}' AND name = 'model'"
    )
    logged = (
        begun[0]
        if begun
        else client.create_logged_model(
            run.info.experiment_id,
            name="model",
            source_run_id=run_id,
            params=run.data.params,
            tags={
                "harness.experiment": run.data.tags["harness.experiment"],
                "mlflow.note.content": _description(run_id, record),
            },
            model_type="pt2",
        )
    )
    example = np.asarray(record.example, record.input_type)
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_id=logged.model_id,
        signature=ModelSignature(
            inputs=_any_number_of(example.shape[1:], record.input_type),
            outputs=_any_number_of(record.output_shape, record.output_type),
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "data").mkdir()
        (path / "data" / "model.pt2").write_bytes(record.content)
        _save_example(model, example, folder)
        model.add_flavor(
            "pytorch", model_data="data", pytorch_version=record.torch_version, code=None
        )
        pyfunc.add_to_model(
            model, loader_module="mlflow.pytorch", data="data", model_config={"device": None}
        )
        model.save(str(path / "MLmodel"))
        requirements = f"torch=={record.torch_version.partition('+')[0]}\nmlflow\n"
        (path / "requirements.txt").write_text(requirements)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    outputs = run.outputs.model_outputs if run.outputs else []
    client.log_batch(run_id, metrics=_results(client, run, logged.model_id, record))
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=record.step)])
    return str(logged.model_id)


def _any_number_of(shape: Sequence[int], dtype: str) -> Schema:
    return Schema([TensorSpec(np.dtype(dtype), (-1, *shape))])


def _description(run_id: str, record: ModelRecord) -> str:
    def text(shape: Sequence[int], dtype: str) -> str:
        return f"{dtype} ({', '.join(['batch', *map(str, shape)])}{'' if shape else ','})"

    inputs = text(np.shape(record.example)[1:], record.input_type)
    inputs += " in [0, 1]" * record.is_scaled
    outputs = text(record.output_shape, record.output_type)
    if record.classes is None:
        outputs = f"predicted numbers, {outputs}"
    else:
        outputs = f"logits, {outputs}, of the classes {', '.join(record.classes)}"
    weights = "The averaged weights.\n\n" * record.is_averaged
    return DESCRIPTION.format(
        weights=weights, inputs=inputs, outputs=outputs, uri=f"runs:/{run_id}/model"
    )


def _results(client: MlflowClient, run: Run, model_id: str, record: ModelRecord) -> list[Metric]:
    """The run's losses and metrics of the model's weights, to be recorded for it as well.

    They keep their timestamps, so to the store they are the same values and it keeps them once.
    """
    sets = {
        tag.value: entry.dataset
        for entry in (run.inputs.dataset_inputs if run.inputs else [])
        for tag in entry.tags
        if tag.key == "mlflow.data.context"
    }
    found = []
    names = run.data.metrics
    averaged = {f"{part}/{AVERAGE}{name}" for part in JUDGES for name in averages(names)}
    for name in names:
        if (name in averaged) != record.is_averaged:
            continue
        part, _, quantity = name.partition("/")
        dataset = sets.get("training" if part == "train" else part)
        if not quantity or dataset is None:
            continue
        for metric in client.get_metric_history(run.info.run_id, name):
            if metric.step == record.step:
                found.append(
                    Metric(
                        *(name, metric.value, metric.timestamp, record.step),
                        model_id=model_id,
                        dataset_name=dataset.name,
                        dataset_digest=dataset.digest,
                    )
                )
    return found
