"""kill -9 of any daemon, whatever it does just then: the run goes on by itself and ends in the same weights."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.simulator.toy import with_bfloat16, with_kept_reference, with_lag, with_segments, with_updates
from tests.support.alone import weights_of
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import all_stages, await_stable, ended, is_alive, running_step, running_tasks, sealer, strike

SEES_S = 60.0  # until a task of some kind is seen running
PARTITIONS = 8  # of a round
TWO_ROUNDS = {"until": 1, "max": 3}  # as the emulated filter keeps two groups of three
SPEC = all_stages(range_bytes=1 << 20)  # parameters, moments and gradients lie in three shards each


@dataclass
class Trial:
    """Four daemons, and runs of one pipeline on them."""

    mesh: Mesh
    nonces: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def submit(self, node: Daemon | None = None, spec: Pipeline = SPEC) -> str:
        return self.mesh.submit(node or self.mesh.nodes["n0"], spec, nonce=str(next(self.nonces)))

    def seen(self, run: str, stage: str, part: str, since_step: int = 1, count: int = 1) -> list[Daemon]:
        """Daemons that run such a task now."""

        def found() -> list[Daemon]:
            rows = running_tasks(self.mesh, run, stage, part, since_step)
            names = sorted({row["node"] for row in rows})
            return [self.mesh.nodes[name] for name in names] if len(names) >= count else []

        return self.mesh.until(found, SEES_S)

    def check(self, run: str, what: str, spec: Pipeline = SPEC) -> None:
        """The run ends by itself on all that live, in the weights of an undisturbed one."""
        answer = ended(self.mesh, run)
        assert (answer["state"], answer["step"]) == ("done", answer["steps"])
        assert answer["weights"] == weights_of(spec)
        print(f"{what}: {answer['wall_s']:.1f} s")

    def restore(self) -> None:
        """Launch again who was killed, so that the next test has four."""
        for node in self.mesh.nodes.values():
            if node.process is None:
                self.mesh.launch(node)
        self.mesh.await_all()


@pytest.fixture(scope="module")
def module_trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Mesh(tmp_path_factory.mktemp("kill"), 4) as mesh:
        yield Trial(mesh)


@pytest.fixture
def trial(module_trial: Trial) -> Iterator[Trial]:
    yield module_trial
    module_trial.restore()


KINDS = {
    "demonstrations": ("warm", "p", 0),
    "generation": ("roll", "p", 1),
    "block": ("learn", "b", 1),
    "slice": ("learn", "s", 1),
    "apply": ("learn", "apply", 1),
    "evaluation": ("heldout", "p", 1),
    "checkpoint": ("checkpoint", "save", 3),
}


@pytest.mark.parametrize("kind", [pytest.param("demonstrations", marks=pytest.mark.slow), *list(KINDS)[1:]])
def test_a_daemon_killed_at_any_task_changes_nothing(trial: Trial, kind: str) -> None:
    """Whatever kind of task is lost with it, others do it again, and bit for bit the same comes out."""
    stage, part, since_step = KINDS[kind]
    run = trial.submit()
    victim = trial.seen(run, stage, part, since_step)[-1]
    strike(trial.mesh, victim)
    trial.check(run, f"killed in {kind}")


def test_gradients_of_half_the_bytes_are_the_same_whoever_dies(trial: Trial) -> None:
    """A death cuts the leaves into other blocks, of which each is rounded."""
    narrow = with_bfloat16(SPEC)
    run = trial.submit(spec=narrow)
    strike(trial.mesh, trial.seen(run, "learn", "b", 1)[-1])
    trial.check(run, "killed in a block of bfloat16", narrow)


def test_a_death_while_steps_are_sampled_ahead_changes_nothing(trial: Trial) -> None:
    """Rollouts of later steps are lost with it, and others make them again of the same version."""
    behind = with_lag(SPEC, 1)
    run = trial.submit(spec=behind)
    trial.seen(run, "learn", "b", 1)
    strike(trial.mesh, trial.seen(run, "roll", "p", 2)[-1])
    trial.check(run, "killed in a rollout of a step ahead", behind)


def test_a_death_while_steps_ahead_are_scored_by_what_the_model_began_as_changes_nothing(trial: Trial) -> None:
    """Whoever samples them has the reference with the version that it samples from, and so does who steps in."""
    behind = with_lag(with_kept_reference(SPEC, 0), 1)
    undisturbed = ended(trial.mesh, trial.submit(spec=behind))
    assert undisturbed["state"] == "done", undisturbed["error"]
    run = trial.submit(spec=behind)
    trial.seen(run, "learn", "b", 1)
    strike(trial.mesh, trial.seen(run, "roll", "p", 2)[-1])
    answer = ended(trial.mesh, run)
    assert (answer["state"], answer["weights"]) == ("done", undisturbed["weights"]), answer["error"]
    assert answer["reproducibility"] == "exact"


def test_a_death_while_segments_of_steps_ahead_are_sampled_loses_and_doubles_nothing(trial: Trial) -> None:
    """Where rollouts are of whatever version there is, each step trains on all that it was to, once, and on nothing
    that is older than it may be."""
    most, steps = 2, 6
    loose = with_segments(all_stages(steps), most)
    run = trial.submit(spec=loose)

    def ahead() -> list[Daemon]:
        """Who samples for a step behind one that trains now."""
        training = [row["step"] for row in running_tasks(trial.mesh, run, "learn", "b")]
        rolled = [row for stage in ("roll_2", "roll") for row in running_tasks(trial.mesh, run, stage, "p")]
        return [trial.mesh.nodes[row["node"]] for row in rolled if training and row["step"] > max(training)]

    strike(trial.mesh, trial.mesh.until(ahead, SEES_S)[0])
    answer = ended(trial.mesh, run)
    assert (answer["state"], answer["step"], answer["reproducibility"]) == ("done", steps, "replay"), answer["error"]
    rows = trial.mesh.ask(trial.mesh.running()[0], "metrics", run=run)["rows"]
    trained = [row for row in rows if row["step"] > 1]  # the first one makes no rollouts
    sampled = loose.stage("roll").config["prompts"] * loose.stage("roll").config["group"]
    assert [row["samples"] for row in trained] == [sampled] * (steps - 1)
    gaps = [(row["version_gap_min"], row["version_gap_max"]) for row in trained]
    assert all(0 <= least <= largest <= most for least, largest in gaps), gaps
    assert any(largest > 0 for _, largest in gaps), "nothing was sampled ahead"


@pytest.mark.parametrize("lag", [0, 1])
def test_a_death_amid_the_updates_of_a_step_changes_nothing(trial: Trial, lag: int) -> None:
    """What the step sampled is carried from version to version by those who live, and so is what the next one is
    sampled from meanwhile, where rollouts are behind."""
    several = with_lag(with_updates(SPEC, epochs=2, minibatches=2), lag)
    undisturbed = ended(trial.mesh, trial.submit(spec=several))
    assert undisturbed["state"] == "done", undisturbed["error"]
    run = trial.submit(spec=several)

    def amid() -> list[Daemon]:
        """Who works on an update that is not the first of its step."""
        rows = running_tasks(trial.mesh, run, "learn", "b")
        later = [row for row in rows if several.schedule.place(int(row["id"].partition("/")[0])).update > 1]
        return [trial.mesh.nodes[row["node"]] for row in later]

    strike(trial.mesh, trial.mesh.until(amid, SEES_S)[0])
    answer = ended(trial.mesh, run)
    assert (answer["state"], answer["weights"]) == ("done", undisturbed["weights"]), answer["error"]
    assert answer["reproducibility"] == "exact"


def test_a_death_amid_the_second_round_of_a_step_changes_nothing(trial: Trial) -> None:
    """A filter keeps too little of the first: that others are sampled follows from what it gave."""
    keep = Stage("keep", "filter", config={"function": "dflowd.operators.filter:pass_rate"}, rounds=TWO_ROUNDS)
    stages = [each for stage in SPEC.stages for each in ((keep, stage) if stage.id == "adv" else (stage,))]
    refilled = replace(SPEC, stages=[replace(each, reads=()) if each.id == "adv" else each for each in stages])
    undisturbed = ended(trial.mesh, trial.submit(spec=refilled))
    assert undisturbed["state"] == "done", undisturbed["error"]
    run = trial.submit(spec=refilled)

    def amid() -> list[Daemon]:
        """Who samples for a second round."""
        rows = running_tasks(trial.mesh, run, "roll", "p")
        return [trial.mesh.nodes[row["node"]] for row in rows if int(row["id"].rpartition("/p")[2]) >= PARTITIONS]

    strike(trial.mesh, trial.mesh.until(amid, SEES_S)[0])
    answer = ended(trial.mesh, run)
    assert (answer["state"], answer["weights"]) == ("done", undisturbed["weights"]), answer["error"]
    assert answer["reproducibility"] == "exact"


def test_a_run_survives_the_daemon_that_it_was_submitted_to(trial: Trial) -> None:
    """Whoever took the run has no part in it that others lack."""
    first = trial.mesh.nodes["n0"]
    run = trial.submit(first)
    trial.seen(run, "roll", "p")
    strike(trial.mesh, first)
    trial.check(run, "killed the one submitted to")


def test_a_sealer_that_dies_with_all_records_in_hand_is_succeeded(trial: Trial) -> None:
    """All partitions are done, only the manifest is missing, and who should make it is stopped, then dead."""
    mesh = trial.mesh
    await_stable(mesh)
    run = trial.submit()
    victim = sealer(mesh, run, 1)
    slow = next(node for node in trial.seen(run, "roll", "p", count=2) if node is not victim)
    for pid in slow.children():
        os.kill(pid, signal.SIGSTOP)  # its partitions wait, so nobody can seal
    mesh.until(lambda: only_one_works(mesh, slow, run), SEES_S)
    os.kill(victim.pid, signal.SIGSTOP)
    for pid in slow.children():
        os.kill(pid, signal.SIGCONT)
    mesh.until(lambda: slow.name not in at_work(mesh, slow, run), SEES_S)
    strike(mesh, victim)
    trial.check(run, "killed the sealer before the manifest")


def at_work(mesh: Mesh, asked: Daemon, run: str) -> set[str]:
    """Names of daemons that have a partition of step 1 in a slot."""
    rows = mesh.ask(asked, "tasks", run=run, step=1)["tasks"]
    return {row["node"] for row in rows if row["stage"] == "roll" and row["state"] == "running"}


def only_one_works(mesh: Mesh, slow: Daemon, run: str) -> bool:
    """Whether all others are done with their partitions of step 1, at least half of all eight."""
    rows = mesh.ask(slow, "tasks", run=run, step=1)["tasks"]
    done = [row for row in rows if row["stage"] == "adv" and row["state"] == "done" and row["node"] != slow.name]
    return len(done) >= 4 and at_work(mesh, slow, run) == {slow.name}


def test_a_sealer_that_dies_right_after_sealing_is_succeeded(trial: Trial) -> None:
    """Its seal lies on the replicas: the rest of the step is done by it."""
    mesh = trial.mesh
    await_stable(mesh)
    run = trial.submit()
    strike(mesh, sealer(mesh, run, running_step(mesh, run)))
    trial.check(run, "killed the sealer after the manifest")


def test_two_of_four_killed_at_once_change_nothing(trial: Trial) -> None:
    """Half of the mesh goes in the middle of a step; the other half does all of it."""
    run = trial.submit()
    victims = trial.seen(run, "roll", "p", count=2)[:2]
    strike(trial.mesh, *victims)
    trial.check(run, "killed two of four")


@pytest.mark.parametrize("kind", ["generation", "apply"])
def test_an_engine_killed_alone_is_started_again(trial: Trial, kind: str) -> None:
    """Out of memory, a fault of a driver: the daemon lives, and its task goes back."""
    stage, part, since_step = KINDS[kind]
    run = trial.submit()
    node = trial.seen(run, stage, part, since_step)[0]
    daemon, engines = node.pid, node.children()
    for pid in engines:
        os.kill(pid, signal.SIGKILL)
    trial.check(run, f"killed an engine in {kind}")
    assert node.pid == daemon
    assert is_alive(daemon)
    again = trial.submit()  # others may have taken over what was left of the first
    trial.mesh.until(lambda: node.children() and not set(engines) & set(node.children()), 30)
    trial.check(again, f"and started it again for the next run, after {kind}")
    assert any("engine.died" in line for line in node.log_lines())
    assert trial.mesh.states(node) == dict.fromkeys(trial.mesh.nodes, "alive")
    assert Path(f"/proc/{daemon}").exists()
