"""The trained network as an inference graph that runs without its source."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Iterator

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
    with _silence():
        program = torch.export.export(
            frozen, (example.cpu(),), dynamic_shapes=[{0: torch.export.Dim.AUTO}]
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine's files
    file = io.BytesIO()
    torch.export.save(program, file)
    with torch.no_grad():
        return file.getvalue(), frozen(example.cpu())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep off the screen the whole graph of a network that torch cannot export."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    screen = io.StringIO()
    try:
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            yield
    finally:
        logging.disable(before)
