"""Messages of membership: probes, what members claim of each other, and what a member is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NewType, TypeAlias, get_args

from ..names import NodeId, content_id, node_id

MetaId = NewType("MetaId", str)  # hash of a Meta
MemberState: TypeAlias = Literal["alive", "suspect", "dead", "left"]
MAX_APART: Final = 32  # that a member tells of: with more it has no link worth the name, and others need not plan by it

# Things that messages carry -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meta:
    """What a node is; the same for the whole life of its process, and pulled by hash on need."""

    public_key: bytes  # CURVE, 32 raw bytes; its hash is the node's id
    control: str  # tcp://HOST:PORT
    bulk: str  # tcp://HOST:PORT
    name: str
    device: str  # what its slots run on: `cpu`, `cuda`, `emulated`
    slots: int
    roles: tuple[str, ...]
    facts: tuple[tuple[str, str], ...] = ()  # further capabilities, name and value: the numerics class, sizes, builds
    born_ms: int = 0  # when the process began, milliseconds since 1970; of two with one key the later one yields

    @cached_property
    def node(self) -> NodeId:
        return node_id(self.public_key)

    @cached_property
    def id(self) -> MetaId:
        fields = [self.public_key, self.control, self.bulk, self.name, self.device, self.slots, self.roles, self.facts]
        return MetaId(content_id("meta", [*fields, self.born_ms]))


@dataclass(frozen=True, slots=True)
class Update:
    """One claim about one member.

    `incarnation` counts the lives of the node's process, `refutation` how often it denied within this life that it is
    gone, or said something else of itself: what it kept in memory is lost with the first, and still there after the
    second.
    """

    node: NodeId
    incarnation: int
    refutation: int
    state: MemberState
    meta: MetaId
    by: NodeId | None  # whose suspicion or verdict it is; none where the node speaks of itself
    drained: bool = False  # it takes no new work: only the node itself says so
    apart: tuple[NodeId, ...] = ()  # members that it cannot talk to itself, dead ones too; sorted, MAX_APART at most


# Messages -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? Answered by Ack(sequence)."""

    sequence: int
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Ping `target` for me. Answered by Ack(sequence) once it answered, else by Nack(sequence) before the deadline."""

    sequence: int
    target: NodeId
    deadline_s: float
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    sequence: int
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Nack:
    """The target of a PingRequest did not answer; the relay did."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Gossip:
    """News that waits for no probe."""

    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """All that the sender believes, and what it is itself (push-pull). `wants_answer`: send yours back."""

    wants_answer: bool
    meta: Meta
    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class SyncAsk:
    """A hash of all that the sender believes. Who believes the same is silent, who does not answers by a Sync that
    wants an answer."""

    digest: bytes  # 16 of them


@dataclass(frozen=True, slots=True)
class MetaGet:
    metas: tuple[MetaId, ...]


@dataclass(frozen=True, slots=True)
class MetaPut:
    """Those of the asked-for metas that the sender has."""

    metas: tuple[Meta, ...]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The receiver speaks to the sender, but did not answer at the address that it announces for this lane."""

    lane: str
    address: str


@dataclass(frozen=True, slots=True)
class Relayed:
    """A frame of `origin` to `to`, who cannot talk to each other, on its way through members that can. `sealed`: the
    frame's bytes, which only `to` can open, and only `origin` can have closed."""

    origin: NodeId
    to: NodeId
    hops: int  # members that passed it on so far
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Knock:
    """Sent over a link that was dialled, and over no other. Answered by Knocked(token), over any."""

    token: bytes


@dataclass(frozen=True, slots=True)
class Knocked:
    """The link that brought this token leads to the sender."""

    token: bytes


GossipMessage: TypeAlias = Ping | PingRequest | Ack | Nack | Gossip | Sync | SyncAsk | MetaGet | MetaPut | Unreachable
GOSSIP_MESSAGES: tuple[type, ...] = get_args(GossipMessage)
REACH_MESSAGES = (Knock, Knocked)  # between lanes; no machine sees them
RELAY_MESSAGES = (Relayed,)  # for the node: whom a frame goes to next
