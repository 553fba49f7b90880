"""What this machine computes with: its GPUs or its cores, and what an engine child's environment says of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_HOST_THREADS = 8
NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")  # one folder a GPU; there is none without a driver


@dataclass(frozen=True, slots=True)
class Devices:
    """`gpus`: their models, in the driver's order. `cores`: those that this process may use."""

    gpus: tuple[str, ...]
    cores: int

    @property
    def text(self) -> str:
        if not self.gpus:
            return f"cpu x{self.cores}"
        kinds = sorted(set(self.gpus))
        return ", ".join(f"{kind} x{self.gpus.count(kind)}" for kind in kinds)

    def of_slot(self, index: int) -> tuple[int, ...]:
        """The GPUs that a slot owns, by their place; one, or none where there is none."""
        return (index % len(self.gpus),) if self.gpus else ()

    @property
    def slots(self) -> int:
        """One engine a GPU; one in all without any, since engines only share the same cores."""
        return max(1, len(self.gpus))

    @property
    def host_slots(self) -> int:
        """Where engines use the cores themselves, an update beside them gains nothing."""
        return 1 if self.gpus else 0

    @property
    def host_threads(self) -> int:
        """Of what is done on shards alone: beyond a few, memory is the bound."""
        return min(self.cores, MOST_HOST_THREADS)

    def workers(self, slots: int) -> int:
        """Of one slot, that run users' functions: on cores that no engine needs."""
        return max(1, self.cores // slots - 1)


ALIKE_EVERYWHERE = {
    "PYTHONHASHSEED": "0",  # user code that walks a set of texts walks it in one order in all engines
    "PYTHONUTF8": "1",  # and reads its files alike whatever the host's locale says
}


LOST = (
    "no CUDA-capable device is detected",
    "No CUDA GPUs are available",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error",
    "GPU is lost",
    "system not yet initialized",
)
"""What the CUDA runtime and PyTorch say of a device that no new process can use either. Errors that spoil one process
alone, such as an illegal address, are not among them: the next child is well. Nor is that it is busy, which passes."""


def is_lost(error: str) -> bool:
    """Whether an engine's error says that its device is of no use any more."""
    return any(words in error for words in LOST)


def find_devices(driver: Path = NVIDIA_DRIVER) -> Devices:
    gpus = []
    if driver.is_dir():
        for folder in sorted(driver.iterdir()):
            gpus.append(_model(folder / "information"))
    return Devices(tuple(gpus), len(os.sched_getaffinity(0)))


def engine_environment(gpus: Sequence[int] | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a slot's engine child: this process's, what Python reads of it when it starts, and which GPUs
    are its own; with None not one may be.

    What its libraries must find there for equal bits an engine sets itself, before it loads them.
    """
    settled = {**environment, **ALIKE_EVERYWHERE, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as the driver counts them
    return {**settled, "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus or ()))} if gpus or gpus is None else settled


def _model(file: Path) -> str:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return "gpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), "gpu")
