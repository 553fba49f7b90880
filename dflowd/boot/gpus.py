"""What the driver tells of this host's GPUs (NVML), without a context on them: it takes no memory there."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

PACKAGE = "pynvml"  # of nvidia-ml-py


def gpu_facts() -> list[dict[str, Any]]:
    """A map a GPU, in the driver's order: `name`, `memory_total` and `memory_used` (bytes), `busy` (percent of the last
    second), `celsius`, `hot_at` (where it slows down), `ecc_errors` (uncorrected, since it was last reset). What a GPU
    does not tell is None, and so is all of one that `fell_off` the bus. [] where there is no driver that answers, or no
    package.
    """
    try:
        nvml: Any = importlib.import_module(PACKAGE)
        nvml.nvmlInit()
    except Exception:  # not installed, no driver, or one that this package does not know
        return []
    try:
        return [_facts(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _facts(nvml: Any, index: int) -> dict[str, Any]:
    lost = (nvml.NVMLError_GpuIsLost, nvml.NVMLError_Unknown)
    facts: dict[str, Any] = {"fell_off": False}

    def ask(name: str, question: Callable[[Any], Any]) -> None:
        facts[name] = None
        with contextlib.suppress(nvml.NVMLError):
            try:
                facts[name] = question(nvml.nvmlDeviceGetHandleByIndex(index))
            except lost:
                facts["fell_off"] = True

    ask("name", nvml.nvmlDeviceGetName)
    ask("memory_total", lambda gpu: int(nvml.nvmlDeviceGetMemoryInfo(gpu).total))
    ask("memory_used", lambda gpu: int(nvml.nvmlDeviceGetMemoryInfo(gpu).used))
    ask("busy", lambda gpu: int(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu))
    ask("celsius", lambda gpu: int(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)))
    slows = nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    ask("hot_at", lambda gpu: int(nvml.nvmlDeviceGetTemperatureThreshold(gpu, slows)))
    uncorrected, since_reset = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    ask("ecc_errors", lambda gpu: int(nvml.nvmlDeviceGetTotalEccErrors(gpu, uncorrected, since_reset)))
    return facts
