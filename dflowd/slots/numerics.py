"""What this host's engines will compute with, as far as it shows without loading them.

Hosts whose text differs may make other bits of the same work. An engine that has started knows better: it tests itself
and tells its own class (engines/exactness.py). This one is for daemons, which load no model code, and is advertised
from their first moment.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .devices import Devices

CPU_INFO = Path("/proc/cpuinfo")
GPU_DRIVER = Path("/proc/driver/nvidia/version")


def advertised_class(devices: Devices, cpu_info: Path = CPU_INFO, gpu_driver: Path = GPU_DRIVER) -> str:
    """Words apart by blanks: builds of the libraries, then the device and what selects its code paths."""
    builds = f"torch-{_installed('torch')} transformers-{_installed('transformers')}"
    if devices.gpus:
        kinds = "+".join(sorted({gpu.replace(" ", "-") for gpu in devices.gpus}))
        return f"{builds} {kinds} driver-{_driver(gpu_driver)}"
    return f"{builds} cpu-{_cpu_kind(cpu_info)}-1thread"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _cpu_kind(cpu_info: Path) -> str:
    """The code paths that PyTorch takes: engines pin AVX2, where the processor has it."""
    if platform.machine() != "x86_64":
        return platform.machine()
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return "unknown"
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return "AVX2" if {"avx2", "fma"} <= set(flags) else "DEFAULT"


def _driver(file: Path) -> str:
    try:
        words = file.read_text().split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")
