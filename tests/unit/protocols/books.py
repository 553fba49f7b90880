"""What the tests of the step protocol are written in: nodes by number, shards and records by name, a step's view."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from dflow_protocols.claiming.ability import Ability
from dflow_protocols.claiming.failure import Failures
from dflow_protocols.claiming.loans import Loans
from dflow_protocols.names import (
    NodeId,
    Partition,
    RunId,
    SealId,
    ShardId,
    ShardRef,
    SpecId,
    TaskKey,
    VersionId,
    content_id,
    part_of,
)
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.shards.holdings import Holdings
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.step import Step
from dflow_protocols.steps.view import StepView
from dflow_protocols.wire.heartbeat import Heartbeat
from dflow_protocols.wire.steps import Header, Record, Seal

RUN = RunId("a" * 32)
SPEC = SpecId(two_steps().id)
SUSPICION_S = 1.0
MIB = 1 << 20


def who(number: int) -> NodeId:
    return NodeId(f"{number:032x}")


def shard(name: str, nbytes: int = 100) -> ShardRef:
    return ShardRef(ShardId(content_id("shard", name)), nbytes)


def record(
    stage: str,
    part: str,
    reads: Sequence[str],
    *outputs: ShardRef,
    step: int = 0,
    metrics: tuple[tuple[str, float], ...] = (),
) -> Record:
    named = tuple((f"out{place}", ref) for place, ref in enumerate(outputs))
    return Record(TaskKey(step, stage, part_of(part)), tuple(reads), named, (), metrics)


def version(name: str, parent: Header | None = None, *, samples: int = 0, seal: Seal | None = None) -> Header:
    """The weights `name`: version 0, or made from `parent` by `seal`."""
    made_by = seal.id if seal is not None else SealId(content_id("seal", name))
    step = 0 if parent is None else parent.step + 1
    trained = samples + (parent.samples if parent is not None else 0)
    state = (("optimizer:learn", shard(f"{name}/o", 4 * MIB)), ("params:policy", shard(f"{name}/p", 2 * MIB)))
    return Header(parent.id if parent is not None else None, step, trained, made_by, state)


def heartbeat(own: Header | None) -> Heartbeat:
    return Heartbeat(RUN, own.head if own is not None else None, None, None)


ZERO = version("zero")


def view(
    *,
    me: int = 1,
    members: Collection[int] = (1, 2, 3),
    living: Collection[int] | None = None,
    now: float = 0.0,
    header: Header = ZERO,
) -> StepView:
    """The first step of the toy pipeline, all of `members` in its roster; nobody holds anything yet."""
    nodes = [who(number) for number in members]
    step = Step(header.step)
    step.take_roster(make_roster(header.step, 0, nodes, nodes))
    up = frozenset(nodes if living is None else (who(number) for number in living))
    books = Holdings(RUN, who(me))
    return StepView(
        now,
        who(me),
        RUN,
        up,
        SUSPICION_S,
        step,
        plan(two_steps(), header.step),
        header,
        header,
        books,
        Failures(),
        is_idle=True,
        loans=Loans(who(me)),
        ability=Ability(RUN, two_steps()),
    )


def later(at: StepView, now: float, living: Collection[int] | None = None) -> StepView:
    """The same books at another time, or with others alive."""
    up = at.living if living is None else frozenset(who(number) for number in living)
    return replace(at, now=now, living=up)


def learn(at: StepView, *records: Record, holders: Collection[int] = (1, 2)) -> None:
    """These records are in the books, and who holds what they made is known."""
    for each in records:
        at.step.add(each)
        for number in holders:
            if who(number) == at.me:
                for ref in each.shards:
                    at.holdings.keep(ref)
            at.holdings.credit(who(number), [ref.id for ref in each.shards])


def finished_partition(partition: int, parent: VersionId = ZERO.id, take: str = "") -> tuple[Record, ...]:
    """Records of one partition's chain in the toy pipeline; `take` tells two executions of it apart."""
    reads = [str(parent)]
    made = []
    for stage, output in (("roll", "rollout"), ("score", "reward"), ("adv", "advantage")):
        ref = shard(f"{stage}/{partition}/{take}")
        groups = ((30, 4), (20, 4), (0, 0)) if stage == "adv" else ()
        made.append(Record(TaskKey(0, stage, Partition(partition)), tuple(reads), ((output, ref),), groups, ()))
        reads.append(ref.id)
    return tuple(made)
