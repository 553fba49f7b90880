"""The files of a run: looked for once, waited for by all that opens them, and left to others meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dflow_protocols.controllers.alarm import Alarm
from dflow_protocols.controllers.checkpoints import Checkpoints
from dflow_protocols.controllers.files import LOOK_WAIT, LOOKING, Files
from dflow_protocols.controllers.stealing import Stealing
from dflow_protocols.events import Action, FilesFound, FindFiles, Report, Restored, Send, Start, Stop, Submitted
from dflow_protocols.names import MANIFEST, NodeId, Once, Partition, Slice, TaskKey, run_id
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.calls import FreeSlots
from dflow_protocols.run_state.run_state import MeshView
from dflow_protocols.runs.registry import Registry
from dflow_protocols.runs.run import Run
from dflow_protocols.simulator.model.files import FILES
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.duty import CHAIN, SAVE, SLICE, Duty
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.sealing import sealed_chains
from dflow_protocols.wire.steps import ClaimPut, RunPut, Stolen, Withdrawal
from dflow_protocols.work import ChainWork, InitWork, SaveWork, SliceWork, Work
from tests.unit.protocols.books import RUN, ZERO, finished_partition, heartbeat, learn, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

ME, PEER = who(1), who(2)
PIPELINE = Pipeline.from_dict(two_steps().to_dict())
NAME = run_id(PIPELINE.text_id, PEER, "0")
ROSTER = make_roster(0, 0, (ME,), (ME,))
ACTIVE = RunPut(NAME, runs.ACTIVE, 0, PIPELINE.canonical(), "/spec", FILES, PEER, "0", ROSTER, b"", True)
ALONE = MeshView(frozenset((ME,)), frozenset((ME,)), 1.0, 1, is_gathered=True)
BOTH = MeshView(frozenset((ME, PEER)), frozenset((ME, PEER)), 1.0, 1, is_gathered=True)
ONE = version("one", ZERO, samples=4)
WHY = "1 of 2 files is under way"


def asked(actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, FindFiles)]


def begun(actions: list[Action]) -> list[type[Work]]:
    return [type(action.work) for action in actions if isinstance(action, Start)]


def submitted(status: RunPut) -> Run:
    known = Registry(ME, (), (), (), 0.0, None)
    fields = (status.spec, status.base, status.submitter, status.nonce, status.files)
    known.submit(0.0, ALONE, Submitted(1, *fields))
    return known.runs[NAME]


def heard(status: RunPut) -> Run:
    known = Registry(ME, (), (), (), 0.0, None)
    known.take(0.0, ALONE, PEER, status)
    return known.runs[NAME]


def restored(status: RunPut) -> Run:
    return Registry(ME, [Restored(runs.dump(status))], (), (), 0.0, None).runs[NAME]


def resumed(status: RunPut) -> Run:
    failed = runs.ended(status, runs.FAILED, {"error": "x"})
    known = Registry(ME, [Restored(runs.dump(failed))], (), (), 0.0, None)
    known.runs[NAME].reconcile(0.0, ALONE, FreeSlots(1))
    known.take(0.0, ALONE, PEER, replace(status, attempt=1))
    return known.runs[NAME]


Opened = Callable[[RunPut], Run]
OPENED = pytest.mark.parametrize("opened", [submitted, heard, restored, resumed])


@OPENED
def test_however_a_run_comes_up_here_its_files_are_looked_for_once_and_waited_for(opened: Opened) -> None:
    """A work that opens what is not there yet would fail, and count against its task or this host."""
    run = opened(ACTIVE)
    first = run.reconcile(1.0, ALONE, FreeSlots(1))
    assert asked(first) == [FindFiles(NAME, FILES, "/spec")]
    for lacking in (WHY, "2 of 2 files are under way"):
        run.files_found(2.0, ALONE, FilesFound(NAME, lacking))
        actions = run.reconcile(2.0, ALONE, FreeSlots(1))
        assert begun([*first, *actions]) == []
        assert asked(actions) == []
        assert run.summary()["files"] == lacking
    run.files_found(3.0, ALONE, FilesFound(NAME))
    assert begun(run.reconcile(3.0, ALONE, FreeSlots(1))) == [InitWork]
    assert run.summary()["files"] == ""


@OPENED
def test_a_run_without_files_waits_for_nothing(opened: Opened) -> None:
    """Where each host has them under the spec's names, as for every run of an older client."""
    run = opened(replace(ACTIVE, files=()))
    actions = run.reconcile(1.0, ALONE, FreeSlots(1))
    assert asked(actions) == []
    assert begun(actions) == [InitWork]
    assert run.files_found(2.0, ALONE, FilesFound(NAME, WHY)) == []
    assert run.summary()["files"] == ""


def test_an_ended_run_looks_for_nothing() -> None:
    """Nothing of it starts here any more."""
    run = restored(runs.ended(ACTIVE, runs.FINISHED, {}))
    assert asked(run.reconcile(1.0, ALONE, FreeSlots(1))) == []
    assert run.files_found(2.0, ALONE, FilesFound(NAME, WHY)) == []


def test_others_hear_at_once_that_files_are_missing_and_that_they_are_here() -> None:
    """They take this node's share, and give it some again, without waiting out any silence."""
    run = heard(ACTIVE)
    run.reconcile(1.0, BOTH, FreeSlots(1))
    for lacking, is_told in ((WHY, True), ("less is missing", False), ("", True), ("", False), ("a disk went", True)):
        sent = [action for action in run.files_found(2.0, BOTH, FilesFound(NAME, lacking)) if isinstance(action, Send)]
        assert sent == ([Send(PEER, None)] if is_told else [])
        withdrawn = run.heartbeat(2.0, BOTH).withdrawn
        assert {(each.cause, each.why) for each in withdrawn} == ({("files", lacking)} if lacking else set())


def test_a_host_that_looks_for_long_is_taken_to_lack_them_until_it_answers() -> None:
    """A model of many gigabytes is hashed first: others need not find out by its silence, nor people by nothing."""
    run = heard(ACTIVE)
    run.reconcile(1.0, BOTH, FreeSlots(1))
    assert run.reconcile(1.0 + LOOK_WAIT, BOTH, FreeSlots(1)) == []
    assert Send(PEER, None) in run.reconcile(1.1 + LOOK_WAIT, BOTH, FreeSlots(1))
    assert {(each.cause, each.why) for each in run.heartbeat(2.0, BOTH).withdrawn} == {("files", LOOKING)}
    assert run.summary()["files"] == LOOKING
    run.files_found(3.0, BOTH, FilesFound(NAME))
    assert run.heartbeat(3.0, BOTH).withdrawn == ()


def test_who_lacks_files_copies_the_first_version_of_who_has_them() -> None:
    """It follows the run and joins in mid-step; who is just looking makes its own, as all of a roster do."""
    run = heard(replace(ACTIVE, roster=make_roster(0, 0, (ME, PEER), (ME, PEER))))
    run.reconcile(1.0, BOTH, FreeSlots(1))
    run.observe(PEER, replace(heartbeat(ZERO), run=NAME), BOTH.living)
    run.reconcile(1.2, BOTH, FreeSlots(1))
    assert run.state.catch_up.asked is None
    run.files_found(3.0, BOTH, FilesFound(NAME, WHY))
    run.reconcile(3.0, BOTH, FreeSlots(1))
    assert run.state.catch_up.asked is not None


# One work after another ----------------------------------------------------------------------------------------------


class Gate:
    """A run with files at node 1 of three, which holds a version, and what may start there."""

    def __init__(self) -> None:
        self.run = run = ARun(files=FILES)
        self.checkpoints = Checkpoints(run.state, run.calls, run.outbox, ())
        self.stealing = Stealing(run.state, run.calls, run.outbox, None)
        self.files = Files(run.state, run.calls, self.stealing, run.outbox)
        self.alarm = Alarm(run.state, self.checkpoints, self.stealing)

    def found(self, lacking: str = "", *refused: str) -> None:
        self.files.found(0.0, ALL, lacking, refused, self.run.out)

    def starts(self, work: Work, unit: TaskKey, rank: int = CHAIN, slots: int = 1) -> bool:
        return self.run.calls.start(0.0, ALL, [Duty(rank, unit, work, (), (ZERO.id,))], FreeSlots(slots), self.run.out)

    def starts_chain(self, *stages: str, partition: int = 0, slots: int = 1) -> bool:
        work = ChainWork(0, stages, partition, ())
        return self.starts(work, TaskKey(0, stages[0], Partition(partition)), slots=slots)

    def told(self) -> list[str]:
        return [action.name for action in self.run.out if isinstance(action, Report)]


def test_what_is_done_on_shards_alone_needs_no_files_and_a_checkpoint_does() -> None:
    """Who lacks files still sums, applies and follows; a checkpoint's folder has the tokenizer in it."""
    gate = Gate()
    gate.found(WHY)
    assert not gate.starts(SaveWork(RUN, ZERO), TaskKey(0, "checkpoint", Once("save")), SAVE)
    slices = SliceWork(0, "learn", 0, 1, 4, (), 1)
    assert gate.starts(slices, TaskKey(0, "learn", Slice(0, 1)), SLICE)


@pytest.mark.parametrize(
    ("refused", "left", "starts"),
    [
        (("score",), ("roll", "score", "adv"), False),
        (("adv",), ("roll", "score", "adv"), False),
        (("score",), ("adv",), True),
        (("held",), ("roll", "score", "adv"), True),
    ],
)
def test_a_chain_starts_only_where_all_that_is_left_of_it_may_run(
    refused: tuple[str, ...], left: tuple[str, ...], starts: bool
) -> None:
    """Code that came by wire never runs on a host that refuses it; and nobody would go on where it had to stop."""
    gate = Gate()
    gate.found("", *refused)
    assert gate.starts_chain(*left) == starts


def test_a_checkpoint_is_left_to_holders_that_have_the_files() -> None:
    """Else each would be late by the wait for one that cannot write it; and where none can, nobody is held up."""
    gate = Gate()
    gate.run.hold(ONE)
    gate.run.state.versions.observe(who(2), heartbeat(ONE))
    gate.found(WHY)
    assert gate.checkpoints.writers(ALL, ONE) == {who(2)}
    assert not gate.checkpoints.part(0.0, mesh(1), gate.run.out)
    assert begun(gate.run.out) == []
    files_of(gate, who(2))
    assert gate.checkpoints.writers(ALL, ONE) == {who(1), who(2)}
    gate.found()
    assert gate.checkpoints.part(0.0, mesh(1), gate.run.out)
    assert begun(gate.run.out) == [SaveWork]


def test_that_everybody_has_withdrawn_opens_no_gate() -> None:
    """Of failures that means that the tasks are at fault, and of files nothing."""
    gate = Gate()
    gate.found(WHY)
    for node in (who(2), who(3)):
        gate.run.state.ability.learn(node, (Withdrawal("roll", "failed", "it died"),))
    assert gate.run.view().able(("roll", "score", "adv")) == {who(2), who(3)}
    for node in (who(2), who(3)):
        gate.run.state.ability.learn(node, (Withdrawal("roll", "files", WHY),))
    assert gate.run.view().able(("roll", "score", "adv")) == ALL.living
    assert not gate.starts_chain("roll", "score", "adv")


def test_when_the_gate_closes_again_what_runs_may_end_and_what_waits_is_others() -> None:
    """A disk went: what is begun has opened its files; what would begin now would find none."""
    gate = Gate()
    gate.found()
    assert gate.starts_chain("roll", "score", "adv")
    assert gate.starts_chain("roll", "score", "adv", partition=1, slots=0)
    running, waiting = gate.run.state.calls
    gate.found("a disk went")
    assert [action.call for action in gate.run.out if isinstance(action, Stop)] == [waiting]
    assert list(gate.run.state.calls) == [running]
    assert not gate.starts_chain("roll", "score", "adv", partition=2)
    gate.found()
    assert gate.starts_chain("roll", "score", "adv", partition=2)


def test_what_was_taken_from_others_is_theirs_again_as_soon_as_it_may_not_start() -> None:
    """A unit that one node claims and never starts is done by nobody: its home leaves it to the claim for ever."""
    gate = Gate()
    gate.found()
    unit = TaskKey(0, "roll", Partition(0))
    gate.run.state.loans.borrow(who(3), [Stolen(unit, who(3))])
    gate.found(WHY)
    assert gate.run.state.loans.held() == []
    assert (who(3), ClaimPut(RUN, 0, ())) in gate.run.told(ClaimPut)


def test_who_slept_claims_nothing_when_it_is_told_of_files() -> None:
    """What runs here may be done by others since: it says so again when it knows."""
    gate = Gate()
    gate.found()
    assert gate.starts_chain("roll", "score", "adv")
    gate.files.found(0.0, replace(ALL, is_rejoining=True), WHY, (), gate.run.out)
    assert gate.run.told(ClaimPut) == []
    gate.files.found(0.0, ALL, "", (), gate.run.out)
    gate.found(WHY)
    assert gate.run.told(ClaimPut) != []


def test_what_is_granted_too_late_is_not_claimed() -> None:
    """Who granted it had not heard yet: without a claim it is due at its home again when the grant lapses."""
    gate = Gate()
    gate.found("", "adv")
    unit, work = TaskKey(0, "roll", Partition(0)), ChainWork(0, ("roll", "score", "adv"), 0, ())
    gate.run.state.loans.borrow(who(3), [Stolen(unit, who(3))])
    gate.stealing.settle([Duty(CHAIN, unit, work, (), (ZERO.id,))])
    assert gate.run.state.loans.held() == []


# What people are told -----------------------------------------------------------------------------------------------


def files_of(gate: Gate, *nodes: NodeId) -> None:
    """These lack files, too."""
    for node in nodes:
        gate.run.state.ability.learn(node, tuple(Withdrawal(each.id, "files", WHY) for each in PIPELINE.stages))


def test_a_run_whose_files_nobody_has_is_blocked_and_says_so() -> None:
    """Once for each cause, with how it stands: not once for each file that comes."""
    gate = Gate()
    chains = sealed_chains(gate.run.view(), MANIFEST)
    gate.found(WHY)
    files_of(gate, who(2))
    gate.alarm.needs(gate.run.view(), chains, gate.run.out)
    assert gate.alarm.blocked == ""
    files_of(gate, who(3))
    for lacking in (WHY, "2 of 2 files are under way"):
        gate.found(lacking)
        gate.alarm.needs(gate.run.view(), chains, gate.run.out)
        assert gate.alarm.blocked == f"files of the run: {lacking}"
    assert gate.told() == ["run.blocked"]
    gate.found()
    gate.alarm.needs(gate.run.view(), chains, gate.run.out)
    assert gate.told() == ["run.blocked", "run.unblocked"]


def test_a_run_whose_code_nobody_runs_is_blocked_as_long_as_some_of_it_is_left() -> None:
    """What was done of a chain before its last host refused it needs nobody any more."""
    gate = Gate()
    chains = sealed_chains(gate.run.view(), MANIFEST)
    gate.found("", "score")
    for node in (who(2), who(3)):
        gate.run.state.ability.learn(node, (Withdrawal("score", "code", "no"),))
    gate.alarm.needs(gate.run.view(), chains, gate.run.out)
    assert gate.alarm.blocked == "its code runs nowhere: stage score"
    learn(gate.run.view(), *(record for p in range(chains[0].partitions) for record in finished_partition(p)))
    gate.alarm.needs(gate.run.view(), chains, gate.run.out)
    assert gate.alarm.blocked == ""


def test_nothing_is_called_blocked_before_the_host_has_looked() -> None:
    """Else each submit and each restart would begin with a warning."""
    run = submitted(ACTIVE)
    told = [each.name for each in run.reconcile(1.0, ALONE, FreeSlots(1)) if isinstance(each, Report)]
    assert told == []
    run.files_found(2.0, ALONE, FilesFound(NAME, WHY))
    told = [each.name for each in run.reconcile(2.0, ALONE, FreeSlots(1)) if isinstance(each, Report)]
    assert told == ["run.blocked"]
    assert run.summary()["blocked"] == f"files of the run: {WHY}"
