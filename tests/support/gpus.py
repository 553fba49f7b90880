"""A simulated NVIDIA driver, as no machine of these tests has a GPU: its library, and daemons that believe it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import dflowd.observe.gpus
import dflowd.opening
from dflowd.boot.gpus import PACKAGE
from dflowd.slots.devices import Devices
from tests.support import launch

STATES = "SIMULATED_GPUS"  # names a file with a list: of each GPU of a daemon's host, whether it is well
LOOK_S = 0.05  # a test need not wait as long as an operator can


class NVMLError(Exception):
    pass


class Lost(NVMLError):
    pass


def library(gpus: Sequence[Mapping[str, Any]]) -> Any:
    """A module with what is used of pynvml. A GPU's answer that is an exception is raised."""

    def ask(name: str) -> Any:
        def answer(gpu: Any, *_: Any) -> Any:
            found = gpu[name]
            if isinstance(found, Exception):
                raise found
            return found

        return answer

    made: Any = ModuleType(PACKAGE)
    made.NVMLError, made.NVMLError_GpuIsLost, made.NVMLError_Unknown = (
        NVMLError,
        Lost,
        type("Unknown", (NVMLError,), {}),
    )
    made.nvmlInit = made.nvmlShutdown = lambda: None
    made.nvmlDeviceGetCount = lambda: len(gpus)
    made.nvmlDeviceGetHandleByIndex = lambda index: ask("handle")({**gpus[index], "handle": gpus[index]})
    made.nvmlDeviceGetName = ask("name")
    made.nvmlDeviceGetMemoryInfo = ask("memory")
    made.nvmlDeviceGetUtilizationRates = ask("use")
    made.nvmlDeviceGetTemperature = ask("celsius")
    made.nvmlDeviceGetTemperatureThreshold = ask("hot_at")
    made.nvmlDeviceGetTotalEccErrors = ask("errors")
    made.NVML_TEMPERATURE_GPU = made.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0
    made.NVML_MEMORY_ERROR_TYPE_UNCORRECTED = made.NVML_VOLATILE_ECC = 0
    return made


WELL: dict[str, Any] = {
    "name": "NVIDIA H100",
    "memory": SimpleNamespace(total=80_000, used=500),
    "use": SimpleNamespace(gpu=35),
    "celsius": 41,
    "hot_at": 87,
    "errors": NVMLError("not supported"),
}
GONE: dict[str, Any] = dict.fromkeys(WELL, Lost("gpu is lost"))


def set_gpus(file: Path, *well: bool) -> None:
    """From now on the GPUs of the host whose driver reads `file` are so."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(well))
    os.replace(new, file)


def start(config: Path, output: Path, environment: Mapping[str, str]) -> launch.Process:
    """A daemon on a host with simulated GPUs, whose environment names their file. Its engines know nothing of them."""
    return launch.fork(config, output, environment, _simulate)


def _simulate() -> None:
    file = Path(os.environ[STATES])

    def states() -> list[bool]:
        return list(json.loads(file.read_text()))

    patch = pytest.MonkeyPatch()  # for the life of this process
    patch.setitem(sys.modules, PACKAGE, library(_Live(lambda: [WELL if well else GONE for well in states()])))
    patch.setattr(dflowd.opening, "find_devices", lambda: Devices(("simulated",) * len(states()), 1))
    patch.setattr(dflowd.observe.gpus, "LOOK_S", LOOK_S)


class _Live(Sequence[Mapping[str, Any]]):
    """The GPUs as they are at each question."""

    def __init__(self, read: Callable[[], list[dict[str, Any]]]) -> None:
        self._read = read

    def __len__(self) -> int:
        return len(self._read())

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]
