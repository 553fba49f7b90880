"""`dflow sim`: many drawn meshes by one command, and what it says of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dflow_cli.app import main
from dflow_protocols.simulator.drawn import swarm
from dflow_protocols.simulator.drawn.apart import twice
from dflow_protocols.simulator.drawn.choice import Choice
from dflow_protocols.simulator.drawn.survey import compare, live_once
from dflow_protocols.simulator.world import World


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `dflow sim` and its last line."""
    code = main(["sim", "--json", *words])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_what_was_lived_through_is_told_in_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts that keep score read the last line, and two calls give the same worlds."""
    code, first = told(capsys, "--nodes", "2", "--faults", "crash,pause")
    assert code == 0
    assert (first["seeds"], first["nodes"], first["violations"]) == (1, 2, [])
    assert first["struck"].keys() <= {"crash", "pause"}
    assert sum(first["struck"].values()) > 0
    assert first["events"] > 0
    assert first["virtual_s"] > 12.0
    _, again = told(capsys, "--nodes", "2", "--faults", "crash,pause")
    assert first["digest"] == again["digest"]


def test_without_faults_nothing_strikes(capsys: pytest.CaptureFixture[str]) -> None:
    """The undisturbed mesh is what others are compared with."""
    assert told(capsys, "--faults", "none", "--nodes", "2")[1]["struck"] == {}


def test_membership_can_be_looked_at_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """No run takes its time: so more nodes fit into the same seconds."""
    code, found = told(capsys, "--work", "none", "--nodes", "9", "--faults", "crash,split,leave,join")
    assert (code, found["nodes"]) == (0, 9)


@pytest.mark.parametrize("choice", [Choice(faults=("cancel",)), Choice(engine="poison"), Choice(faults=("poison",))])
def test_a_run_that_is_to_end_another_way_ends_that_way(choice: Choice) -> None:
    """A cancel may come in time or late; what is poisoned is left out."""
    assert live_once(0, choice).violation is None


def test_some_worlds_have_just_the_room_that_a_run_takes() -> None:
    """Where nothing fills it only such a store sheds or refuses; the survey tells that there was one."""
    limits = {seed: swarm.DrawnWorld(seed, Choice()).world.hosts[0].store.limit_bytes for seed in range(110)}
    tight = next(seed for seed, limit in limits.items() if limit == swarm.TIGHT)
    roomy = next(seed for seed, limit in limits.items() if limit is None)
    assert live_once(tight, Choice()).rooms["limited"] == 1
    assert not live_once(roomy, Choice(faults=())).rooms


@pytest.mark.usefixtures("in_this_process")
def test_a_broken_promise_is_told_with_its_name_and_the_command_that_shows_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds one hands it on as one line."""

    def breaks(world: World, deadline_s: float) -> None:
        raise world.violation("they do not", "members_agree")

    monkeypatch.setattr(swarm, "agree", breaks)
    code, found = told(capsys, "--work", "none", "--first-seed", "7", "--nodes", "2")
    (broken,) = found["violations"]
    assert code == 1
    assert (broken["seed"], broken["invariant"]) == (7, "members_agree")
    assert broken["replay"] == "dflow sim --first-seed 7 --nodes 2 --work none"
    assert broken["at"] >= 12.0


def test_a_seed_that_tells_two_stories_is_a_violation() -> None:
    """Nothing else could be trusted: no failure could be seen again."""
    choice = Choice(work="none")
    first, second = live_once(3, Choice(nodes=1, work="none")), live_once(3, Choice(nodes=2, work="none"))
    violation = compare(first, second, choice).violation
    assert violation is not None
    assert violation.invariant == "one_digest"
    assert "replay: dflow sim --first-seed 3 --work none" in str(violation)


def test_the_two_lives_of_a_seed_hash_text_differently() -> None:
    """In one process both would walk every set in one order, and nothing that follows it would be found."""
    ((one, other),) = twice(hash_of, [0])
    assert one != other


def hash_of(seed: int) -> int:
    return hash(f"a text, {seed}")


def test_a_name_that_is_none_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A fault that is misspelt would else never strike."""
    assert main(["sim", "--faults", "crsh"]) == 2
    assert "no fault is called `crsh`\nhint: known: crash, power_cut," in capsys.readouterr().err


def test_all_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Faults, engines and invariants are told apart by name everywhere."""
    _, names = told(capsys, "--list")
    assert {"crash", "power_cut", "pause", "cut", "split", "leave"} <= set(names["faults"])
    assert {"pure", "noisy", "wild", "poison"} == set(names["engines"])
    assert "one_chain" in names["invariants"]
    assert len(names["mutations"]) >= 40


@pytest.mark.parametrize(
    ("mutation", "invariant"),
    [
        ("a_submit_is_answered_by_one_node", "answer_kept"),
        ("settled_before_a_replica_has_it", "seal_kept"),
        ("one_holder_is_sealed_at_once", "copied_first"),
    ],
)
def test_a_broken_rule_is_noticed(capsys: pytest.CaptureFixture[str], mutation: str, invariant: str) -> None:
    """Worlds that notice nothing would prove nothing."""
    code = main(["sim", "--json", "--mutation", mutation])
    printed = capsys.readouterr()
    (broken,) = json.loads(printed.out)["violations"]
    assert (code, broken["invariant"]) == (1, invariant)
    assert broken["replay"] == f"dflow sim --first-seed {broken['seed']} --mutation {mutation}"
    assert f"replay: {broken['replay']}\n" in printed.err
