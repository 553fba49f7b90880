"""A gain is split without rest: the causes' ratios multiply to the whole."""

from __future__ import annotations

import math

import pytest

from benchmarks import scaling
from benchmarks.figure import Skipped
from benchmarks.scaling.baselines import LABELS
from benchmarks.scaling.causes import CAUSES, MESH, NO_STEALING, figures, measure


def test_the_causes_multiply_to_the_whole_gain() -> None:
    """Each begins where the one before it ended."""
    systems = [LABELS["ray-batches"], LABELS["transferqueue"], LABELS["ray-stages"], LABELS["ray-references"]]
    speeds = {system: 10.0 * 1.5**at for at, system in enumerate([*systems, NO_STEALING, MESH])}
    *parts, whole = (each.ratio or 0.0 for each in figures("siirl-table1", speeds))
    assert len(parts) == len(CAUSES) - 1
    assert math.isclose(math.prod(parts), whole)
    assert math.isclose(whole, 1.5**5)


def test_a_split_with_a_part_that_cannot_be_measured_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio over a gap would count two causes as one."""
    monkeypatch.setattr(scaling, "on_a_cluster", lambda *_: "needs ray")
    with pytest.raises(Skipped, match="ray-batches: needs ray"):
        measure(print, nodes=1, steps=1)
