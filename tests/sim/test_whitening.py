"""Advantages that are whitened by those of the whole step: a statistic that no leaf could find by itself."""

from __future__ import annotations

import pytest

from dflow_protocols.simulator.faults import Crash
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.toy import two_steps, with_whitening
from tests.support.simulated import ENDS_S, mesh

WHITENED = with_whitening(two_steps())


def test_advantages_are_whitened_alike_whoever_trains() -> None:
    """The invariants hold every leaf against the sums of all partitions; the weights are those of one node alone, also
    where one dies in between."""
    alone, same = mesh(1, pipeline=WHITENED)
    world, run = mesh(3, pipeline=WHITENED)
    world.at(world.now + 2.0, Crash(1, 1.0))
    assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
def test_what_is_sampled_again_is_whitened_by_what_was_sealed(noise: frozenset[type]) -> None:
    """Of two executions of a partition each has its own sums; those of the sealed one count, with its data."""
    for victim in range(3):
        world, run = mesh(3, pipeline=WHITENED, noise=noise)
        world.at(world.now + 1.5, Crash(victim, 1.0))
        finish(world, run, ENDS_S)
