"""Worlds drawn at random: sizes, noise, losses, crashes, stalls, cuts, joiners and leavers all at once."""

from __future__ import annotations

import pytest

from dflow_protocols.simulator.drawn.swarm import live_through

SEEDS = 40
SLOW_SEEDS = 1000
TOLD = {
    723: "room granted for what only an unreachable holder had kept a store full of nothing",
    6015: "a block that was trimmed too late went down as the shorter one",
    7002: "who serves nobody got ahead alone, and the others waited for what only it had",
    7074: "a broken machine that heard nobody ended the run for all",
    9070: "like 7002, two steps later",
}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_drawn_world_keeps_every_promise(seed: int) -> None:
    """What nobody thought of: nothing mixed, one chain, every run ends, all is freed."""
    live_through(seed)


@pytest.mark.parametrize("seed", TOLD)
def test_worlds_that_once_broke_a_promise_keep_it_now(seed: int) -> None:
    """What each of them showed is said in TOLD, as long as the same draws make the same world."""
    live_through(seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tenth", range(10))
def test_very_many_drawn_worlds_keep_every_promise(tenth: int) -> None:
    """The same for many more of them."""
    for seed in range(SEEDS + tenth, SEEDS + SLOW_SEEDS, 10):
        live_through(seed)
