"""How the run of a drawn world comes to its end, where people have to help it, and where it may have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.names import RunId
from dflow_protocols.run_state.status import CANCELLED, FAILED
from dflow_protocols.simulator.faults import Crash, Poison, Stop
from dflow_protocols.simulator.goals import conclude, ended, finish, is_unknown, state_at
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.work import FailureKind
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights


def test_a_run_that_was_stopped_for_good_is_resumed() -> None:
    """The node that was to resume it is dead: somebody else is asked."""
    world, run = mesh(3)
    world.at(world.now + 0.5, Stop(resumed_by=2, resumed_after_s=2.0, node=1))
    world.at(world.now + 1.0, Crash(2))
    world.run(5.0)
    conclude(world, run, ENDS_S)
    assert ended(world, run)()


def test_a_run_that_waits_for_who_is_gone_for_good_goes_on() -> None:
    """Where a pipeline says that the smaller part of a split waits, who is left after deaths is that part."""
    world, run = mesh(3, pipeline=replace(two_steps(), on_split="pause_minority"))
    for node in (0, 1):
        world.at(world.now + 0.5, Crash(node))
    conclude(world, run, ENDS_S)
    assert ended(world, run)()


@pytest.mark.parametrize("kind", ["user", "engine"])
@pytest.mark.parametrize("mended_after_s", [None, 4.0])
def test_a_run_that_failed_by_itself_is_resumed_when_that_is_mended(
    kind: FailureKind, mended_after_s: float | None
) -> None:
    """Its author mends it, and a client resumes it: then, or when everything has healed."""
    world, run = mesh(3)
    world.at(world.now + 0.1, Poison("roll", 1, kind, mended_after_s, resumed_by=2))
    assert world.run(ENDS_S, lambda: state_at(world.hosts[2], run) == FAILED)
    conclude(world, run, ENDS_S)
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_a_run_that_was_cancelled_in_time_is_over() -> None:
    """And nothing of it is left."""
    world, run = mesh(2)
    world.run(0.3)
    world.cancel(1, run)
    conclude(world, run, ENDS_S)
    assert ended(world, run, CANCELLED)()


def test_of_a_submit_that_nobody_answered_nothing_need_be_left() -> None:
    """Whoever took it died before it told anybody."""
    world, _ = mesh(3)
    world.kill(world.hosts[2])
    conclude(world, RunId(world.submit(2, two_steps(), nonce="late")), ENDS_S)
    assert is_unknown(world, world.submit(2, two_steps(), nonce="late"))
