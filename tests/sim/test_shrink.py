"""Of many faults those are left that a violation needs."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_cli.app import main
from dflow_protocols.simulator.drawn import swarm
from dflow_protocols.simulator.drawn.choice import Choice
from dflow_protocols.simulator.drawn.shrink import shrink
from dflow_protocols.simulator.drawn.swarm import live_through
from dflow_protocols.simulator.faults import Crash
from dflow_protocols.simulator.invariants import Violation
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.mutations import MUTATIONS
from dflow_protocols.simulator.mutations.mutation import living
from dflow_protocols.simulator.world import World

CRASHES = Choice(nodes=3, faults=("crash", "pause", "lose"), work="none")
SEED = 1  # which draws several faults, a crash among them


@pytest.fixture
def no_node_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise that crashes break, and nothing else."""

    def kill(self: World, host: Host) -> None:
        raise self.violation(f"{host.name} died", "scenario")

    monkeypatch.setattr(World, "kill", kill)


@pytest.mark.usefixtures("no_node_dies")
def test_just_the_fault_that_breaks_the_promise_is_left() -> None:
    """Whoever looks for a cause has one thing to look at, and a test that fails until it is mended."""
    found = shrink(SEED, CRASHES, "scenario")
    assert found is not None
    ((_, fault),) = found.faults
    assert isinstance(fault, Crash)
    assert str(fault) in found.story
    with pytest.raises(AssertionError, match="died"):
        live_through(SEED, CRASHES, faults=found.faults)
    live_through(SEED, CRASHES, faults=())
    assert shrink(SEED, CRASHES, "one_chain") is None


@pytest.mark.usefixtures("no_node_dies", "in_this_process")
def test_the_command_tells_the_fewest_faults_and_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, as the last line of stdout is for scripts."""
    words = ["--first-seed", str(SEED), "--nodes", "3", "--faults", "crash,pause,lose", "--work", "none", "--shrink"]
    assert main(["sim", *words]) == 1
    told = capsys.readouterr().err
    assert "faults that are left (1):" in told
    assert f"def test_seed_{SEED}_keeps_scenario() -> None:" in told


@pytest.mark.usefixtures("no_node_dies", "in_this_process")
def test_what_is_not_seen_again_is_said_to_be_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where two lives of a seed differ: silence would be taken for a command that forgot what it was asked for."""
    monkeypatch.setattr("dflow_protocols.simulator.drawn.shrink.shrink", lambda *_: None)
    words = ["--first-seed", str(SEED), "--nodes", "3", "--faults", "crash,pause,lose", "--work", "none", "--shrink"]
    assert main(["sim", *words]) == 1
    assert f"seed {SEED}: lived once more it breaks no `scenario`" in capsys.readouterr().err


def test_a_story_tells_what_was_settled_and_what_waits_and_the_case_runs_as_it_is_pasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fails while the rule is broken, and holds once it is mended."""
    monkeypatch.setattr(swarm, "DEADLINE_S", 6.0)
    mutation, seed = MUTATIONS["nobody_steps_in"], 36
    with living(mutation):
        found = shrink(seed, Choice(nodes=3, faults=("handicap", "pause")), "run_ends")
        assert found is not None
        assert len(found.faults) == 1
        pasted: dict[str, Any] = {}
        exec(compile(found.case, "case", "exec"), pasted)
        case = pasted[f"test_seed_{seed}_keeps_run_ends"]
        with pytest.raises(Violation, match="run has finished"):
            case()
    case()
    for part in ("settles manifest/", "Handicap(", "says active", "waits for copies, ", "replay: dflow sim"):
        assert part in found.story
