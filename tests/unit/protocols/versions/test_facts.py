"""What a chain of seals says for people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.names import MANIFEST, Partition, SpecId, TaskKey, VersionId
from dflow_protocols.versions import facts
from dflow_protocols.wire.steps import Record, Seal


def test_rewards_that_a_limit_decided_are_told_from_the_step_that_has_the_first() -> None:
    """From there on another run of the same spec may find other weights: whoever compares has to know."""
    reward = Record(TaskKey(7, "score", Partition(0)), (), (), (), (("reward_timeouts", 2.0),))
    records = (reward, replace(reward, metrics=(("reward_sum", 1.0),)))
    told = facts.timed_out(Seal(SpecId("s"), 7, VersionId("v"), "v", MANIFEST, 0, 0, records), 7)
    assert told == (("timeouts@7/rewards", 2.0),)
    later = (("timeouts@9/rewards", 1.0), ("heldout@3/evaluated", 4.0))
    assert facts.not_exact_since(facts.merge(told, later)) == 7
    assert facts.not_exact_since((("heldout@3/evaluated", 4.0),)) is None


@pytest.mark.parametrize("name", ["timeouts@x/rewards", "timeouts@", "timeouts"])
def test_a_members_invention_is_no_step(name: str) -> None:
    """Facts come by wire beside the id, from whoever says them."""
    assert facts.not_exact_since(((name, 1.0),)) is None
