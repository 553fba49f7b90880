"""What a member tells is taken where it can be one of the run's, and nothing else is."""

from __future__ import annotations

import pytest

from dflow_protocols.controllers.checkpoints import Checkpoints
from dflow_protocols.controllers.leaving import Leaving
from dflow_protocols.controllers.quarantine import Quarantine
from dflow_protocols.controllers.stealing import Stealing
from dflow_protocols.names import MANIFEST, TaskKey, part_of
from dflow_protocols.run_state import long_seals
from dflow_protocols.run_state.long_seals import parted
from dflow_protocols.run_state.run_state import MeshView
from dflow_protocols.runs.anti_entropy import AntiEntropy
from dflow_protocols.runs.inbox import Inbox
from dflow_protocols.runs.relaying import Relaying
from dflow_protocols.simulator.toy import two_steps, warm_then_two
from dflow_protocols.wire.books import Holding
from dflow_protocols.wire.steps import BucketPut, Record, RecordPut, Seal, SealPut, StepMessage
from tests.unit.protocols.books import MIB, RUN, ZERO, finished_partition, record, shard, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh


def hear(run: ARun, message: StepMessage, members: MeshView = ALL) -> None:
    """The run's node is told this by another one."""
    checkpoints = Checkpoints(run.state, run.calls, run.outbox, ())
    stealing = Stealing(run.state, run.calls, run.outbox, None)
    quarantine = Quarantine(run.state, run.outbox)
    leaving = Leaving(run.state, run.calls, checkpoints, stealing, run.outbox)
    anti_entropy = AntiEntropy(run.state, run.outbox, checkpoints, leaving)
    inbox = Inbox(run.state, anti_entropy, checkpoints, quarantine, stealing, Relaying(run.state), run.outbox)
    inbox.take(0.0, members, who(2), message, run.out)


def take(run: ARun, told: Record) -> bool:
    """Whether the run's node takes a record that another one says it made."""
    hear(run, RecordPut(RUN, (told,)))
    return told in run.state.step(told.task.step).all_records()


def demonstrations(groups: int) -> Record:
    """A partition of the stage `warm`, which makes its own data and trains on it."""
    outputs = tuple((name, shard(name)) for name in warm_then_two().stage("warm").writes)
    return Record(TaskKey(0, "warm", part_of("p1")), (ZERO.id,), outputs, ((5, 1),) * groups, ())


def test_partitions_of_demonstrations_are_taken() -> None:
    """Their stage trains, too, yet they are no gradient: else each node would make all of a warm-up by itself."""
    assert take(ARun(warm_then_two()), demonstrations(4))
    assert not take(ARun(warm_then_two()), demonstrations(3))


def test_partitions_of_rollouts_are_taken() -> None:
    assert take(ARun(two_steps()), finished_partition(0)[0])


@pytest.mark.parametrize(("nbytes", "is_taken"), [(2 * MIB, True), (MIB, False)])
def test_blocks_are_taken_if_they_are_as_long_as_the_parameters(nbytes: int, is_taken: bool) -> None:
    """What is cut or sized otherwise would break whoever sums it."""
    block = record("learn", "b0-2", [ZERO.id, "m"], shard("gradient", nbytes))
    assert take(ARun(two_steps()), block) == is_taken


def test_a_long_seal_is_passed_on_with_who_holds_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a manifest whose partitions nobody is known to hold no leaf can be done, and who has all its records asks for
    none."""
    monkeypatch.setattr(long_seals, "SEAL_A_MESSAGE", 2)
    run = ARun(two_steps())
    entries = tuple(each for at in range(run.state.plan(0).chains[0].partitions) for each in finished_partition(at))
    seal = Seal(run.state.spec, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, entries)
    holdings = (Holding(tuple(range(len(seal.shards))), (who(2), who(3))),)
    records, last = parted(SealPut(RUN, seal, True, holdings, None, (who(4),)))
    for message in (*records, last):
        hear(run, message, mesh(1, 2, 3, 4))
    passed = [message for to, message in run.told(BucketPut) if to == who(4) and isinstance(message, BucketPut)]
    held = [each for message in passed for each in message.records]
    assert [each.record for each in held] == list(entries)
    assert {each.holders for each in held} == {(who(2), who(3))}


def test_of_who_holds_what_a_seal_names_each_pair_is_taken_once_and_of_members_alone() -> None:
    """Sixteen thousand places of sixteen thousand nodes take half a megabyte; a daemon that went through all pairs of
    them would stand still for minutes, and one that told them on fill its memory."""
    run = ARun(two_steps())
    entries = tuple(each for at in range(run.state.plan(0).chains[0].partitions) for each in finished_partition(at))
    seal = Seal(run.state.spec, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, entries)
    nodes = (who(3), *map(who, range(50, 250)), who(3), who(2))
    holdings = (Holding((0, 1) * 50, nodes), Holding((1, 0, 2, 9_999), (who(2),)), Holding((0, 3), (who(60),)))
    hear(run, SealPut(RUN, seal, True, holdings, None, (who(4),)), mesh(1, 2, 3, 4))
    ((to, passed),) = run.told(SealPut)
    assert isinstance(passed, SealPut)
    assert (to, passed.holdings) == (who(4), (Holding((0, 1), (who(3), who(2))), Holding((2,), (who(2),))))
    assert run.state.holdings.holders[seal.shards[1]] == {who(2), who(3)}
