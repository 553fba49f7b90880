"""The shape of every machine here: `handle(now, event) -> list[Action]`, and nothing else moves it.

Events are past, actions imperative. Actions are performed in list order, a `Persist` before the `Send` that relies on
it. Time is the argument; the generator of random numbers is handed in and only decides who talks to whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from .names import NodeId, RunId, ShardId, ShardRef, TaskKey, VersionId
from .wire.listing import FileRef
from .wire.steps import Head
from .work import Done, Failed, Origin, Product, Work

T = TypeVar("T")


class Rng(Protocol):
    """What a machine may ask of chance (random.Random fits)."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float) -> float: ...
    def randrange(self, start: int, /) -> int: ...
    def choice(self, seq: Sequence[T], /) -> T: ...
    def sample(self, population: Sequence[T], k: int) -> list[T]: ...


# Events ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A member's frame, or one message of it; who sent it is what its key proves, never what it says."""

    source: NodeId
    message: Any  # a Frame, or a dataclass of wire/
    relay: NodeId | None = None  # who passed it on, where the two have no link of their own


@dataclass(frozen=True, slots=True)
class Tick:
    """The machine's deadline has passed."""


@dataclass(frozen=True, slots=True)
class Lagged:
    """The process runs late: what had happened waited in it for so long before it was handled."""

    seconds: float


Lane: TypeAlias = Literal["control", "bulk"]


@dataclass(frozen=True, slots=True)
class LaneFailed:
    """A member did not answer at the address that it announces for a lane; told again at each try."""

    node: NodeId
    lane: Lane
    address: str


@dataclass(frozen=True, slots=True)
class LaneOpened:
    """A member answered at the address that it announces for a lane."""

    node: NodeId
    lane: Lane


@dataclass(frozen=True, slots=True)
class Submitted:
    """A client of this daemon submits a run. Answered by Reply(request)."""

    request: int
    spec: bytes  # canonical form
    base: str  # folder that relative paths of the spec start from
    submitter: NodeId  # id of the client's key
    nonce: str  # tells two runs of one spec apart
    files: tuple[FileRef, ...] = ()  # that its works open; none where every host has them under the spec's own names


@dataclass(frozen=True, slots=True)
class CancelRequested:
    request: int
    run: RunId


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A client wants a run to stop where it is, to be resumed later. Answered by Reply(request)."""

    request: int
    run: RunId


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """A client wants a failed, stopped or paused run to go on; with `from_start` one of the first two to begin again at
    version 0. Answered by Reply(request)."""

    request: int
    run: RunId
    from_start: bool = False


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """A client wants this node to take no new work (`drained`), or to take some again. Answered by Reply(request)."""

    request: int
    drained: bool


@dataclass(frozen=True, slots=True)
class Began:
    """A slot took this call out of its queue. Told again if its engine had to start first, and is ready only now."""

    call: int


@dataclass(frozen=True, slots=True)
class Finished:
    call: int
    done: Done


@dataclass(frozen=True, slots=True)
class Broke:
    call: int
    failed: Failed


@dataclass(frozen=True, slots=True)
class Reached:
    """A call for a block of leaves begins with this one; those after it are still untouched."""

    call: int
    leaf: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """Chunks [first, end) of a shard lie verified in the local store, counted for the run that asked for them."""

    run: RunId
    shard: ShardId
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """No holder that was named served these chunks. `missing`: holders that answered that they have it not."""

    run: RunId
    shard: ShardId
    first: int
    end: int
    missing: tuple[NodeId, ...]
    silent: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class FetchAdvanced:
    """A chunk of a running fetch arrived and was verified."""

    run: RunId
    shard: ShardId


@dataclass(frozen=True, slots=True)
class Shed:
    """The store gave up a shard of the run, whole or in part, for want of space; nothing more is told of fetches of
    it."""

    run: RunId
    shard: ShardId


@dataclass(frozen=True, slots=True)
class RoomMade:
    """Space was freed after a work or a fetch had found none."""


@dataclass(frozen=True, slots=True)
class FilesFound:
    """How a run's files stand on this host, after `FindFiles`; told again whenever that changes.

    `lacking`: empty when all that this host needs lie here, else what is missing or under way, in words. `refused`:
    stages that this host does not run, as it runs no code that came by wire.
    """

    run: RunId
    lacking: str = ""
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """So many of this node's slots take work now: the device of one failed (`why`, in words), or answers again."""

    usable: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class NotPersisted:
    """A `Persist` failed, and nothing after it was sent in that turn. It is tried again until `Persisted`, or never if
    it was to be written at once or not at all."""

    key: str
    is_given_up: bool = False


@dataclass(frozen=True, slots=True)
class Persisted:
    """What had not been kept is on disk now."""

    key: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """The daemon was asked to stop: give back what is held, hand over what only this node has."""


Event: TypeAlias = (
    Received
    | Tick
    | Lagged
    | LaneFailed
    | LaneOpened
    | Submitted
    | CancelRequested
    | StopRequested
    | ResumeRequested
    | DrainRequested
    | Began
    | Finished
    | Broke
    | Reached
    | Fetched
    | FetchFailed
    | FetchAdvanced
    | Shed
    | RoomMade
    | FilesFound
    | SlotsChanged
    | NotPersisted
    | Persisted
    | Leaving
)


# Actions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """One message to a member. The node gathers all that is due to a member in one turn into one frame.
    `is_direct`: over the link to that member and no other way."""

    to: NodeId
    message: Any
    is_direct: bool = False


@dataclass(frozen=True, slots=True)
class SendThrough:
    """A frame to a member that this node cannot talk to: sealed for its key, then handed to `relay` as a Relayed."""

    relay: NodeId
    to: NodeId
    public_key: bytes
    message: Any


@dataclass(frozen=True, slots=True)
class Unseal:
    """Open what a relay brought for this node; if `origin`, who has this key, closed it, it comes back as Received."""

    origin: NodeId
    public_key: bytes
    relay: NodeId
    sealed: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """A member cannot be talked to any more, though it lives: what was asked of it over the bulk lane is given up."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Persist:
    """Write `value` (msgpack bytes) under `key` in the state directory, fsynced, before the next action. An empty value
    forgets the key."""

    key: str
    value: bytes
    age_s: float = 0.0  # how long ago it came to be so; told again, with the time since then, when it is restored
    or_never: bool = False  # not tried again where the disk does not take it: the node takes it back


@dataclass(frozen=True, slots=True)
class Restored:
    """What a node of an earlier life persisted, and how long that has been so."""

    value: bytes
    age_s: float = 0.0
    name: str = ""  # the key's last part: of a run its id


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a work in a slot, or behind what runs there. Told of by Began(call), answered by Finished(call) or
    Broke(call). Blocks of leaves tell how far they are (Reached), so that the rest can be given away."""

    call: int
    run: RunId
    task: TaskKey
    work: Work
    fresh: bool = False  # in an engine that did nothing before: the task has failed somewhere
    origin: Origin = Origin.DEALT  # how the task came to this node
    samples_from: int | None = None  # the number of the version that its rollouts are of, if it samples any


@dataclass(frozen=True, slots=True)
class Stop:
    """Give a call up; nothing of it is answered any more."""

    call: int


@dataclass(frozen=True, slots=True)
class Trim:
    """Leaves from `end` on of a running block are somebody else's now: end the call before them, if it is not past."""

    call: int
    end: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring chunks [first, end) of a shard here, from any of the holders. Answered by Fetched or FetchFailed.

    `step`: what it is needed for; space is granted to the oldest step first. `product`: what of it; the state of a
    version may not give way to anything. `came`: its bytes, as a member said: if they are, no holder is asked.
    """

    run: RunId
    ref: ShardRef
    first: int
    end: int
    holders: tuple[NodeId, ...]
    step: int = 0
    product: Product = Product.OUTPUT
    came: bytes = b""


@dataclass(frozen=True, slots=True)
class Drop:
    """Free these shards of a run (whole or in part), and give up fetches of them."""

    run: RunId
    shards: tuple[ShardId, ...]


@dataclass(frozen=True, slots=True)
class FindFiles:
    """See to it that a run's files lie here: under their own names, which start from `base`, else brought from members.
    Told of by FilesFound, as often as it changes, until the run ends."""

    run: RunId
    files: tuple[FileRef, ...]
    base: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove the checkpoint of this version from this node's disk: newer ones are whole on enough disks."""

    run: RunId
    step: int
    version: VersionId


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a client's request. `otherwise`: what to answer, in place of yes, where a `Persist` before it failed."""

    request: int
    ok: bool
    value: Mapping[str, Any]
    otherwise: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Dial:
    """A member's control and bulk addresses, newly learnt or changed. Sends to it go there."""

    node: NodeId
    public_key: bytes
    control: str
    bulk: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """This node's newest version of a run is another one: keep what its step gave, for people."""

    run: RunId
    head: Head
    is_copied: bool  # from others; else it was made here
    metrics: Mapping[str, float]  # of the step; none of a version that was copied
    seconds: float | None = None  # since the step opened; None of a version that was copied
    fork_step: int | None = None  # what this node held of the steps after it no longer counts


@dataclass(frozen=True, slots=True)
class Report:
    """Something worth a log line: a name of reports.py, then fields."""

    name: str
    fields: Mapping[str, Any]
    level: str = "info"


Action: TypeAlias = (
    Send
    | SendThrough
    | Unseal
    | HangUp
    | Persist
    | Start
    | Stop
    | Trim
    | Fetch
    | Drop
    | FindFiles
    | Discard
    | Reply
    | Dial
    | Advanced
    | Report
)
