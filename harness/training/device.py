"""How a training computes: device, threads, precision, clock."""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from harness.base import fields
from harness.base.errors import BadRequest
from harness.base.fields import Threads
from harness.base.processors import processors
from harness.base.signals import deferred


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How to compute an experiment; none of these settings is a hyperparameter."""

    device: str = "auto"
    """auto (cuda, else mps, else cpu), cpu, cuda, mps, or one of several GPUs: cuda:1."""
    threads: Annotated[int, Threads] = 0
    """Threads of torch on the CPU; 0 lets torch choose. Another number gives other bits."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Precision of float32 matrix products; high and medium may be faster, and change the bits."""
    capture_graph: bool = False
    """Replay each update as a captured CUDA graph; eager without CUDA or if the capture fails."""

    def __post_init__(self) -> None:
        fields.check_all(self)

    def apply(self) -> torch.device:
        """Set torch's threads and precision for this process, and return the device.

        Raises:
            BadRequest: this machine has no such device.
        """
        device = choose(self.device)
        if self.threads:
            torch.set_num_threads(self.threads)
        elif torch.get_num_threads() > processors():
            # torch does not know the quota of a container: its threads would wait for each other.
            torch.set_num_threads(processors())
        torch.set_float32_matmul_precision(self.matmul_precision)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # streams and captured graphs belong to the current one
        return device

    def parameters(self) -> dict[str, Any]:
        """The settings that change numbers; they are recorded beside the hyperparameters."""
        return {
            "matmul_precision": self.matmul_precision,
            "capture_graph": self.capture_graph,
        }


def choose(name: str = "auto") -> torch.device:
    """The device of that name; `auto` means cuda, else mps, else cpu.

    Raises:
        BadRequest: this machine has no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    known = ["cpu"] + ["mps"] * mps
    if cuda:
        known += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in known:
        raise BadRequest(
            f"device: {name!r} is not one of this machine's: auto, {', '.join(known)}."
        )
    return torch.device(name)


def describe(device: torch.device) -> dict[str, str]:
    """The hardware and the numerics of this process, by tag name, without the host's name.

    `device` is the kind of the device, `device_name` the model name of accelerator or processor,
    `capability` what its kernels are compiled for: `AVX2`, `sm_90`.
    """
    processor = _processor_name()
    cuda = device.type == "cuda"
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if cuda else processor,
        "capability": _capability(device),
        "processor": processor,
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda) if cuda else "none",
    }


def _capability(device: torch.device) -> str:
    if device.type == "cuda":
        return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    return torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else "none"


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory_bytes(device: torch.device) -> int | None:
    """Peak memory of the tensors on the device in bytes; None if the device does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return None


@functools.cache
def _processor_name() -> str:
    """Return the processor's model name, as its maker writes it where the system tells."""
    name = ""
    try:
        if sys.platform == "linux":
            lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
            name = next((line for line in lines if line.startswith("model name")), "")
            name = name.partition(":")[2]
        elif sys.platform == "darwin":
            words = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            with deferred():
                name = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        elif sys.platform == "win32":
            import winreg  # Windows alone has it

            path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                name = str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    except OSError:
        pass
    return name.strip() or platform.processor() or platform.machine()
