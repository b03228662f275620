"""The trained network as an inference graph that runs without its source."""

from __future__ import annotations

import copy
import io

import torch
from torch import nn


def exported(network: nn.Module, example: torch.Tensor) -> tuple[bytes, torch.Tensor]:
    """The network, in evaluation mode and on the CPU, as `torch.export.save` writes it.

    Args:
        example: inputs (b, ...) with b > 1, so that the batch size stays free.

    Returns:
        The file's content, and the network's outputs for the example.
    """
    frozen = copy.deepcopy(network).cpu().eval()
    program = torch.export.export(
        frozen, (example.cpu(),), dynamic_shapes=[{0: torch.export.Dim.AUTO}]
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine's files
    file = io.BytesIO()
    torch.export.save(program, file)
    with torch.no_grad():
        return file.getvalue(), frozen(example.cpu())
