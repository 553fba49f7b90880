"""What a daemon tells of its host's GPUs. The driver's library is simulated here: no machine of these tests has one."""

from __future__ import annotations

import sys

import pytest

from dflowd.boot.gpus import PACKAGE, gpu_facts
from tests.support.gpus import GONE, WELL, NVMLError, library


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
    monkeypatch.setitem(sys.modules, PACKAGE, library([WELL, GONE]))
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
