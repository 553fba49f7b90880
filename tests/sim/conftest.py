"""What tests of simulated meshes share."""

from __future__ import annotations

import pytest

from dflow_protocols.simulator.drawn import survey


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dflow sim` lives its worlds here, where what a test has replaced holds."""
    monkeypatch.setattr(survey, "twice", lambda live, seeds: ((live(seed), live(seed)) for seed in seeds))
