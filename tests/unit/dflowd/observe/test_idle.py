"""What slots waited in a step's time: by the clock, whosever step they worked on."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Start
from dflow_protocols.names import Block, Once, Partition, RunId, TaskKey
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork
from dflowd.observe.idle import Idle

RUN = RunId("ab" * 16)


def rollout(call: int, step: int, samples_from: int | None = 0, at_once: int = 1) -> Start:
    work = ChainWork(step, ("roll",), call, (), at_once=at_once)
    return Start(call, RUN, TaskKey(step, "roll", Partition(call)), work, samples_from=samples_from)


def block(call: int, step: int) -> Start:
    return Start(call, RUN, TaskKey(step, "learn", Block(0, 1)), BlockWork(step, "learn", 0, 1, (), (), ()))


def update(call: int, step: int) -> Start:
    return Start(call, RUN, TaskKey(step, "learn", Once("apply")), ApplyWork(step, "learn", (), (), 0, 1, False))


def test_what_runs_ahead_keeps_a_slot_busy_in_the_time_of_the_step_that_trains() -> None:
    """A sampler that is a step ahead waits for nothing, though none of its tasks is of the step."""
    idle = Idle(1, 0)
    assert idle.advance(RUN, 10.0, is_made=True) == {}  # nobody knows when it began
    idle.begin(rollout(1, step=2), 12.0)
    assert idle.advance(RUN, 20.0, is_made=True) == {"sampler": (2.0, 10.0)}
    idle.end(1, 25.0)
    assert idle.advance(RUN, 30.0, is_made=True) == {"sampler": (5.0, 10.0)}, "it ran on over the version"
    assert idle.advance(RUN, 40.0, is_made=True) == {}, "who did neither has no role"


def test_a_node_has_the_roles_that_it_had_in_the_step() -> None:
    """An evaluation is no sampling, an update no training, yet both keep slots busy."""
    idle = Idle(2, 0)
    idle.advance(RUN, 0.0, is_made=True)
    for asked, ends in ((rollout(1, 0, samples_from=None), 2.0), (update(2, 0), 3.0), (block(3, 0), 4.0)):
        idle.begin(asked, 0.0)
        idle.end(asked.call, ends)
    assert idle.advance(RUN, 10.0, is_made=True) == {"trainer": (11.0, 20.0)}


def test_two_slots_are_busy_however_many_partitions_share_them() -> None:
    idle = Idle(2, 0)
    idle.advance(RUN, 0.0, is_made=True)
    for call in range(8):
        idle.begin(rollout(call, 0, at_once=4), 0.0)
    for call in range(8):
        idle.end(call, 5.0)
    assert idle.advance(RUN, 10.0, is_made=True) == {"sampler": (10.0, 20.0)}


@pytest.mark.parametrize(("host_slots", "left_s"), [(0, 4.0), (1, 7.0)])
def test_what_runs_beside_the_devices_keeps_none_of_them_busy(host_slots: int, left_s: float) -> None:
    idle = Idle(1, host_slots)
    idle.advance(RUN, 0.0, is_made=True)
    for asked, ends in ((block(1, 0), 3.0), (update(2, 0), 6.0)):
        idle.begin(asked, ends - 3.0)
        idle.end(asked.call, ends)
    assert idle.advance(RUN, 10.0, is_made=True) == {"trainer": (left_s, 10.0)}


def test_the_time_in_which_a_version_was_copied_is_no_steps() -> None:
    """A node that was away for an hour did not wait an hour in a step; and a run that is over leaves nothing."""
    idle = Idle(1, 0)
    idle.advance(RUN, 0.0, is_made=True)
    idle.begin(rollout(1, 1), 0.0)
    assert idle.advance(RUN, 100.0, is_made=False) == {}
    assert idle.advance(RUN, 110.0, is_made=True) == {"sampler": (0.0, 10.0)}
    idle.forget(RUN)
    idle.end(1, 120.0)
    assert idle.advance(RUN, 130.0, is_made=True) == {}
