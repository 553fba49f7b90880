"""Nothing breaks: any number of nodes makes the same weights, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dflow_protocols.names import CHUNK_BYTES
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.provenance import PARAMETER_BYTES
from dflow_protocols.simulator.toy import TOY_LEAVES, warm_then_two
from dflow_protocols.simulator.work import NOISY, WILD
from tests.sim.meshes import ENDS_S, mesh, undisturbed_weights


@pytest.mark.parametrize("nodes", [2, 3, 4, 7])
def test_any_number_of_nodes_makes_the_same_weights(nodes: int) -> None:
    """Pure engines: weights are a function of the spec, not of who took part."""
    world, run = mesh(nodes, seed=nodes, submit_to=nodes - 1)
    assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
@pytest.mark.parametrize("noise", [NOISY, WILD], ids=["noisy", "wild"])
def test_engines_that_never_agree_still_make_one_version(nodes: int, noise: frozenset[type]) -> None:
    """vLLM, a judge, unlike hosts: what ran twice differs, and still nothing is mixed and one version is left."""
    world, run = mesh(nodes, seed=nodes, noise=noise)
    finish(world, run, ENDS_S)


def test_a_warm_up_hands_its_parameters_on_and_drops_its_moments() -> None:
    """Two training stages, one after the other: each has an optimizer of its own."""
    world, run = mesh(3, pipeline=warm_then_two())
    alone, same = mesh(1, pipeline=warm_then_two())
    assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)


def test_no_node_holds_more_than_a_few_versions() -> None:
    """Two copies of the state, the step's gradients, and what the next step begins with: not every version."""
    world, run = mesh(3)
    finish(world, run, ENDS_S)
    state = 3 * PARAMETER_BYTES  # parameters and both moments
    bound = 3 * state + (2 + TOY_LEAVES) * PARAMETER_BYTES + CHUNK_BYTES
    assert max(host.shelf.peak_bytes for host in world.hosts) <= bound


@pytest.mark.parametrize("seed", [3, 11])
def test_a_seed_gives_one_digest_in_every_process(seed: int) -> None:
    """Whatever iterates over a set would differ between two processes that hash strings differently."""
    command = [sys.executable, "-m", "dflow_protocols.simulator", str(seed), "--digest"]
    told = [
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True, timeout=120
        ).stdout
        for salt in ("1", "2")
    ]
    assert told[0] == told[1] != ""
