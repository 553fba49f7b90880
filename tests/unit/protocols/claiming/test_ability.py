"""Who can run a stage where a member has lost the devices of all its slots."""

from __future__ import annotations

from dflow_protocols.claiming.ability import REASON_CHARACTERS, Ability
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.wire.steps import Withdrawal

ME, OTHER = NodeId("aa" * 16), NodeId("bb" * 16)
BOTH = frozenset({ME, OTHER})
WHY = "slot 0: GPU 0 fell off the bus"


def ability() -> Ability:
    return Ability(RunId("ab" * 16), two_steps())


def test_who_stands_aside_leaves_every_stage_to_others_until_it_is_back() -> None:
    """With the reason that people are shown, and nothing to wait out when the device is mended."""
    mine = ability()
    assert mine.stand_aside(WHY)
    assert not mine.stand_aside(WHY)
    stages = [stage.id for stage in two_steps().stages]
    assert mine.withdrawn == tuple(Withdrawal(stage, "device", WHY) for stage in sorted(stages))
    assert {mine.able(stages[:1], ME, BOTH, {})} == {frozenset((OTHER,))}  # what is derived of it is kept by it
    assert mine.stand_aside("")
    assert mine.withdrawn == ()
    assert mine.able(stages[:1], ME, BOTH, {}) == BOTH


def test_others_believe_who_stands_aside_and_nobody_is_left_only_if_all_do() -> None:
    """It rides on the frames that tell of any withdrawal; a mesh without a device waits, and gives up no task."""
    mine, theirs = ability(), ability()
    theirs.stand_aside(WHY)
    assert mine.learn(OTHER, theirs.withdrawn)
    assert mine.able(["roll"], ME, BOTH, {}) == {ME}
    mine.stand_aside(WHY)
    assert mine.able(["roll"], ME, BOTH, {}) == BOTH


def test_a_long_reason_is_cut() -> None:
    """It rides on every frame while it lasts."""
    mine = ability()
    mine.stand_aside("x" * 5_000)
    assert {len(each.why) for each in mine.withdrawn} == {REASON_CHARACTERS}
