"""What a daemon tells of its host's GPUs. The driver's library is simulated here: no machine of these tests has one."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dflowd.boot.gpus import PACKAGE, gpu_facts


class NVMLError(Exception):
    pass


class Lost(NVMLError):
    pass


def library(gpus: list[dict[str, Any]]) -> Any:
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
    made.nvmlDeviceGetHandleByIndex = lambda index: ask("handle")(gpus[index] | {"handle": gpus[index]})
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


def test_what_the_driver_tells_is_told_and_what_it_does_not_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, library([WELL]))
    (facts,) = gpu_facts()
    assert facts == {
        "fell_off": False,
        "name": "NVIDIA H100",
        "memory_total": 80_000,
        "memory_used": 500,
        "busy": 35,
        "celsius": 41,
        "hot_at": 87,
        "ecc_errors": None,
    }


def test_one_that_fell_off_the_bus_is_told_beside_those_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dict.fromkeys(WELL, Lost("gpu is lost"))
    monkeypatch.setitem(sys.modules, PACKAGE, library([WELL, gone]))
    first, second = gpu_facts()
    assert not first["fell_off"]
    assert second["fell_off"]
    assert second["memory_total"] is None


def test_a_host_without_a_driver_or_the_package_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = library([WELL])

    def no_driver() -> None:
        raise NVMLError("library not found")

    absent.nvmlInit = no_driver
    monkeypatch.setitem(sys.modules, PACKAGE, absent)
    assert gpu_facts() == []
    monkeypatch.setitem(sys.modules, PACKAGE, None)  # as if it were not installed
    assert gpu_facts() == []
