"""Messages of runs and steps. One dataclass a message; what they mean is docs/protocol.md, rule by rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from ..names import (
    NodeId,
    RecordId,
    RunId,
    SealId,
    ShardId,
    ShardRef,
    SpecId,
    TaskKey,
    VersionId,
    chunk_count,
    content_id,
)
from ..names import version_id as make_version_id
from .books import Holding, Page, TaskClaim
from .listing import FileRef
from .packing import Packed

# Things that messages carry -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """A version as claims and comparisons speak of it."""

    version: VersionId
    step: int  # steps done: the version before step s has step s
    samples: int  # trained on along its chain


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A stage that a node leaves to others for a while, and why. `cause`: tasks of it `failed` there in a row, no
    `device` of the node works, it has not the run's `files`, or it runs no `code` that came by wire."""

    stage: str
    cause: Literal["failed", "device", "files", "code"]
    why: str


@dataclass(frozen=True)
class Record:
    """One stage of one task was done: these inputs gave these outputs. Named by the hash of all its fields."""

    task: TaskKey
    inputs: tuple[str, ...]  # ids of versions, seals and shards, in the order the plan gives
    outputs: tuple[tuple[str, ShardRef], ...]  # name -> shard
    groups: tuple[tuple[int, int], ...]  # per group: trained tokens, trained samples; only where training reads it
    metrics: tuple[tuple[str, float], ...]

    @cached_property
    def id(self) -> RecordId:
        return RecordId(
            content_id(
                "record",
                [
                    [self.task.step, self.task.stage, str(self.task.part)],
                    self.inputs,
                    [[name, ref.id, ref.nbytes] for name, ref in self.outputs],
                    self.groups,
                    self.metrics,
                ],
            )
        )

    @cached_property
    def shards(self) -> tuple[ShardRef, ...]:
        return tuple(ref for _, ref in self.outputs)


LOST = "lost"  # the kind of a skip: nobody has its outputs, nor the version by which they could be made again


@dataclass(frozen=True, slots=True)
class Skip:
    """A partition that a manifest leaves out (named by its chain's first stage), and the evidence against it."""

    task: TaskKey
    kind: str
    digest: str  # of the error
    error: str
    nodes: tuple[NodeId, ...]  # where it failed; beside the id


@dataclass(frozen=True)
class Seal(Packed):
    """What a step settled. `manifest`: the inputs of training; `update`: the reduced slices of one update."""

    spec: SpecId
    step: int
    parent: VersionId
    previous: str  # the seal before it in this step, or the parent version
    kind: str  # manifest | update
    generation: int
    samples: int  # trained on in this step; a manifest has none
    entries: tuple[Record, ...]
    skipped: tuple[Skip, ...] = field(default=())  # partitions of a manifest that are trained without

    @cached_property
    def id(self) -> SealId:
        fields = [self.spec, self.step, self.parent, self.previous, self.kind, self.generation, self.samples]
        skipped = [[skip.task.stage, str(skip.task.part), skip.kind, skip.digest] for skip in self.skipped]
        return SealId(content_id("seal", [*fields, [record.id for record in self.entries], skipped]))

    @cached_property
    def shards(self) -> tuple[ShardId, ...]:
        """All that its entries name, each once."""
        return tuple(dict.fromkeys(ref.id for record in self.entries for ref in record.shards))


@dataclass(frozen=True)
class Header:
    """A version's place in the chain. Names no holder."""

    parent: VersionId | None  # none for version 0
    step: int
    samples: int
    seal: str  # the step's last update seal; for version 0 the spec's id
    state: tuple[tuple[str, ShardRef], ...]
    facts: tuple[tuple[str, float], ...] = field(default=())  # what the chain's seals settled so far, beside the id
    coefficients: tuple[tuple[str, float], ...] = field(default=())  # what follows from them and the next step goes by

    @cached_property
    def id(self) -> VersionId:
        return make_version_id(SealId(self.seal), self.state, self.coefficients)

    @cached_property
    def head(self) -> Head:
        return Head(self.id, self.step, self.samples)


MAX_SLOTS = 1_024  # of a host that count


@dataclass(frozen=True, slots=True)
class Roster:
    """Who a step is dealt to. Higher generation wins, then the smaller id. `slots`: how many works each of the members
    runs at once, in their order; it rides here, and not in what members believe of each other, so that who has the
    roster has the deal."""

    step: int
    generation: int
    members: tuple[NodeId, ...]
    trainers: tuple[NodeId, ...]
    slots: tuple[int, ...] = ()

    @property
    def capacity(self) -> dict[NodeId, int]:
        """Slots by member: one at least, and no more than a host may have, whatever a roster says."""
        return {node: max(1, min(count, MAX_SLOTS)) for node, count in zip(self.members, self.slots, strict=False)}

    @property
    def id(self) -> str:
        return content_id("roster", [self.step, self.generation, self.members, self.trainers, self.slots])


@dataclass(frozen=True, slots=True)
class Held:
    """A record and who claims to hold its outputs."""

    record: Record
    holders: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """`task` failed on `node`, which tells it once an attempt. `kind`: see `work.Failed`."""

    task: TaskKey
    node: NodeId
    attempt: int
    kind: str
    digest: str
    error: str


# Messages -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunPut:
    """A run's spec and status. Statuses merge upwards: active < failed < finished < cancelled.

    `attempt`: how often a failed run was taken up again; active at a later attempt is above failed at an earlier one.
    `files`: what its works open (wire/listing.py bounds it); none where every host has it under the spec's own names.
    """

    run: RunId
    state: str
    attempt: int
    spec: bytes
    base: str
    files: tuple[FileRef, ...]
    submitter: NodeId
    nonce: str
    roster: Roster  # of step 0; unhashed
    outcome: (
        bytes  # msgpack map: version, weights, error, evals, or {stopped: true}; active: empty, or {from_start: true}
    )
    acknowledge: bool  # whether the sender waits for a RunAck
    age_s: float = 0.0  # since it ended, as the sender counts; 0 while it is active


@dataclass(frozen=True, slots=True)
class RunAck:
    """The sender has this state of the run on disk."""

    run: RunId
    state: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunGet:
    """What is this run? Asked by who was sent something about a run it does not know."""

    run: RunId


@dataclass(frozen=True, slots=True)
class RunStates:
    """How runs ended, as the sender knows: run, state, id of the outcome. Said to who comes (back) into the mesh."""

    states: tuple[tuple[RunId, str, str], ...]


@dataclass(frozen=True, slots=True)
class RecordPut:
    """Records whose outputs the sender holds."""

    run: RunId
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class OutputsPut:
    """Bytes of short outputs whose records the sender puts, to who is to be their second holder."""

    run: RunId
    outputs: tuple[tuple[ShardId, bytes], ...]


@dataclass(frozen=True, slots=True)
class RecordsHeld:
    """The sender made these records of the step and holds their outputs. Said again and again by `digest` alone, of
    all their ids; these are named to who asked for them. Those that it is the second to hold are named without it."""

    run: RunId
    step: int
    digest: str
    records: tuple[RecordId, ...]


@dataclass(frozen=True, slots=True)
class RecordsAsk:
    """Answer to RecordsHeld: please put these records. None: which are there? This node knows of others."""

    run: RunId
    step: int
    records: tuple[RecordId, ...]


@dataclass(frozen=True, slots=True)
class ClaimPut:
    """The sender is at work on these units now; the claim lives a lease long, unless renewed."""

    run: RunId
    step: int
    units: tuple[TaskKey, ...]


@dataclass(frozen=True, slots=True)
class StealAsk:
    """The sender has nothing to do in the step after `version`. Repeated with the same number until it is answered."""

    run: RunId
    request: int
    version: VersionId
    pace: tuple[tuple[str, float], ...]  # by stage, the seconds that one partition or leaf takes the sender
    manifest: str  # that the sender trains on; empty before it has one: then it cannot begin leaves


@dataclass(frozen=True, slots=True)
class Stolen:
    """One partition (named by its chain's first stage) or one leaf, and who is to have it back if the thief fails."""

    unit: TaskKey
    home: NodeId


@dataclass(frozen=True, slots=True)
class StealGrant:
    """These are the receiver's now, for a short lease that its claims renew. A repeated request gets the same."""

    run: RunId
    request: int
    version: VersionId
    units: tuple[Stolen, ...]


@dataclass(frozen=True, slots=True)
class StealRefuse:
    """Nothing: this is what waits here, and how long to leave the sender alone."""

    run: RunId
    request: int
    version: VersionId
    backlog: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class FailurePut:
    run: RunId
    attempt: int  # of the run, in which these happened
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class BucketGet:
    """What is known of a step? Three digests of what the sender knows, each answered where the receiver has another
    one: `settled` seals and roster by SealPuts and a RosterPut, `claims` and `records` by BucketPuts. No digest: the
    sender does not ask for that; what nothing is known of has one, too. What need not come once more: `seals`, and
    `read` of the receiver's records, if it has told the sender of any."""

    run: RunId
    step: int
    settled: str
    claims: str
    records: str
    seals: tuple[SealId, ...] = ()
    read: Page | None = None


@dataclass(frozen=True, slots=True)
class BucketPut:
    """What the sender's books say. `page`: which of its records these are; none of those that go before a long seal."""

    run: RunId
    step: int
    records: tuple[Held, ...]
    claims: tuple[TaskClaim, ...]
    page: Page | None = None


@dataclass(frozen=True, slots=True)
class SealPut:
    """A seal, whole. `settled`: its bytes lie on the step's living replicas, so that it may be acted on. `holdings`:
    beside it, who holds what its entries name. `onward`: to whom the receiver is to pass it on."""

    run: RunId
    seal: Seal
    settled: bool
    holdings: tuple[Holding, ...]
    roster: Roster | None  # with an update seal: the next step's
    onward: tuple[NodeId, ...] = ()

    @property
    def holders(self) -> Iterator[tuple[ShardId, tuple[NodeId, ...]]]:
        """Who holds each shard, as `holdings` say; what these place beyond the seal's shards is nothing."""
        shards = self.seal.shards
        for holding in self.holdings:
            yield from ((shards[place], holding.nodes) for place in holding.places if place < len(shards))


@dataclass(frozen=True, slots=True)
class SealNames:
    """A seal that is too long for one message. `seal` lacks its entries: these are named here in their order, and
    BucketPuts before it bring them and who holds what they name. All else as in SealPut."""

    run: RunId
    seal: Seal
    entries: tuple[RecordId, ...]
    settled: bool
    roster: Roster | None
    onward: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class SealAck:
    """The sender keeps this seal's bytes."""

    run: RunId
    step: int
    seal: SealId


@dataclass(frozen=True, slots=True)
class HeaderGet:
    run: RunId
    version: VersionId


@dataclass(frozen=True, slots=True)
class HeaderPut:
    """A version's header, the versions that led to it (newest first, as far as the sender remembers), the seal that
    made it (where the sender still has it) and the roster of the step after. `begun`: the header of the version that
    the pipeline's step began with, where that makes several and this is a later one."""

    run: RunId
    header: Header
    before: tuple[Head, ...]
    seal: Seal | None
    roster: Roster | None
    begun: Header | None = None


@dataclass(frozen=True, slots=True)
class RosterPut:
    run: RunId
    roster: Roster


@dataclass(frozen=True, slots=True)
class CheckpointPut:
    """All versions of the run that the sender has on its disk, whole as far as it knows. None is an answer too."""

    run: RunId
    attempt: int  # of the run: one that begins at version 0 removes what the one before saved
    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """The sender is leaving and holds these alone: please fetch them from it, and say so with a Kept."""

    run: RunId
    shards: tuple[ShardRef, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """The sender holds these whole now."""

    run: RunId
    shards: tuple[ShardId, ...]


@dataclass(frozen=True, slots=True)
class Bring:
    """The sender cannot talk to `holder`: please fetch chunks [first, end) of its shard, and say so with a Brought."""

    run: RunId
    shard: ShardRef
    first: int
    end: int
    holder: NodeId

    @property
    def fits(self) -> bool:
        """Whether the shard has these chunks."""
        return 0 <= self.first < self.end <= chunk_count(self.shard.nbytes)


@dataclass(frozen=True, slots=True)
class Brought:
    """The sender has chunks [first, end) of this shard now."""

    run: RunId
    shard: ShardId
    first: int
    end: int


RunMessage: TypeAlias = RunPut | RunAck | RunGet | RunStates
StepMessage: TypeAlias = (
    RecordPut
    | OutputsPut
    | RecordsHeld
    | RecordsAsk
    | ClaimPut
    | StealAsk
    | StealGrant
    | StealRefuse
    | FailurePut
    | BucketGet
    | BucketPut
    | SealPut
    | SealNames
    | SealAck
    | HeaderGet
    | HeaderPut
    | RosterPut
    | CheckpointPut
    | Keep
    | Kept
    | Bring
    | Brought
)
STEP_MESSAGES: tuple[type, ...] = (*get_args(RunMessage), *get_args(StepMessage))
