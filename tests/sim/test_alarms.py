"""A run that neither fails nor gets anywhere says so, and one that is only slow does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dflow_protocols.controllers import alarm
from dflow_protocols.controllers.alarm import REPEATED
from dflow_protocols.events import Report
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.model.provenance import SliceSum
from dflow_protocols.simulator.toy import two_steps, with_segments
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh


def told(world: World, name: str) -> list[Report]:
    return [report for _, report in world.reports if report.name == name]


def losing_slices(world: World, until: Callable[[], bool]) -> Callable[[], bool]:
    """Every store gives up each slice as soon as it is there: what a step makes is never there when it is needed."""

    def holds() -> bool:
        for host in world.hosts:
            for shard in [shard for shard in host.store.sizes if isinstance(world.ledger[shard], SliceSum)]:
                host.store.give_up(shard)
        return until()

    return holds


@pytest.mark.parametrize("nodes", [1, 2])
def test_work_that_is_repeated_for_ever_is_told_with_what_the_run_waits_for(
    nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,235 times was one unit done in a step that stood, and nobody was told."""
    monkeypatch.setattr(alarm, "STALLED_AFTER", 5.0)
    world, run = mesh(nodes)
    world.expect(ENDS_S, losing_slices(world, lambda: bool(told(world, "run.stalled"))), "the stall is told")
    (report, *_) = told(world, "run.stalled")
    # which of the two depends on when the alarm goes off: before the update is sealed, or between its seal and its end
    assert report.fields["what"] in ("the slices of its gradient", "the slices that its update seal names")
    assert str(report.fields["whom"]).split(", ") == [*dict.fromkeys(str(report.fields["whom"]).split(", "))] != [""]
    repeated = told(world, "work.repeated")
    assert repeated[0].fields["times"] == REPEATED
    assert len(repeated) < 40, "so many lines would hide the others"
    finish(world, run, ENDS_S)
    assert told(world, "run.unstalled")


def test_a_step_that_takes_long_is_not_called_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts of an hour are honest: somebody is at them for the first time."""
    monkeypatch.setattr(alarm, "STALLED_AFTER", 5.0)
    world, run = mesh(3)
    for host in world.hosts:
        host.health.speed = 0.01  # a call takes several times as long as the alarm waits
    world.expect(2_000.0, ended(world, run), "the run ends")
    assert told(world, "run.stalled") == told(world, "work.repeated") == []


def test_segments_that_take_long_are_neither_stalled_nor_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition has a call for each: that its first one is done says nothing of the others."""
    monkeypatch.setattr(alarm, "STALLED_AFTER", 5.0)
    world, run = mesh(2, pipeline=with_segments(two_steps(), 1))
    for host in world.hosts:
        host.health.speed = 0.01
    world.expect(4_000.0, ended(world, run), "the run ends")
    assert told(world, "run.stalled") == told(world, "work.repeated") == []
