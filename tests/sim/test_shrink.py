"""Of many faults those are left that a violation needs."""

from __future__ import annotations

import pytest

from dflow_cli.app import main
from dflow_protocols.simulator.drawn.choice import Choice
from dflow_protocols.simulator.drawn.shrink import shrink
from dflow_protocols.simulator.drawn.swarm import live_through
from dflow_protocols.simulator.faults import Crash
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.world import World

CRASHES = Choice(nodes=3, faults=("crash", "pause", "lose"), work="none")
SEED = 1  # which draws several faults, a crash among them


@pytest.fixture(autouse=True)
def no_node_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise that crashes break, and nothing else."""

    def kill(self: World, host: Host) -> None:
        raise self.violation(f"{host.name} died", "scenario")

    monkeypatch.setattr(World, "kill", kill)


def test_just_the_fault_that_breaks_the_promise_is_left() -> None:
    """Whoever looks for a cause has one thing to look at, and a test that fails until it is mended."""
    found = shrink(SEED, CRASHES, "scenario")
    assert found is not None
    ((_, fault),) = found.faults
    assert isinstance(fault, Crash)
    assert str(fault) in found.story
    assert f"live_through({SEED}, Choice(nodes=3," in found.case
    with pytest.raises(AssertionError, match="died"):
        live_through(SEED, CRASHES, only=found.only)
    live_through(SEED, CRASHES, only=())
    assert shrink(SEED, CRASHES, "one_chain") is None


@pytest.mark.usefixtures("in_this_process")
def test_the_command_tells_the_fewest_faults_and_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, as the last line of stdout is for scripts."""
    words = ["--first-seed", str(SEED), "--nodes", "3", "--faults", "crash,pause,lose", "--work", "none", "--shrink"]
    assert main(["sim", *words]) == 1
    told = capsys.readouterr().err
    assert "faults that are left (1):" in told
    assert f"def test_seed_{SEED}_keeps_scenario() -> None:" in told
