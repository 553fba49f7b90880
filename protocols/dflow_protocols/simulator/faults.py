"""Faults and the moments they are injected at, as data. `node` is an index; None means whoever set the trigger off."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, get_args

from ..events import Action, Event, Send, Start
from ..names import RunId
from ..work import FailureKind
from .model.host import Host
from .model.network import Network


@dataclass(frozen=True, slots=True)
class Crash:
    """Memory and engines are gone, the disk stays. Comes back after a while, or never."""

    node: int | None = None
    restart_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Every node dies at once. All but `stays_off` come back, each after a time drawn up to `seconds`; of `torn` the
    newest checkpoint is damaged, of `lost` the whole disk is a new one."""

    seconds: float
    stays_off: tuple[int, ...] = ()
    torn: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """SIGSTOP: nothing is handled; what arrives meanwhile is handled on waking, and engines go on."""

    seconds: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes from `source` to `to` for a while."""

    source: int
    to: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Split:
    """Nothing passes between `side` and the rest for a while; `inbound`: only nothing into it."""

    side: tuple[int, ...]
    seconds: float
    inbound: bool = False


@dataclass(frozen=True, slots=True)
class BreakEngine:
    """The next `works` works of the node's engine break: `engine` (out of memory, killed) or `user` (code raised in
    a partition)."""

    works: int
    kind: FailureKind = "engine"
    node: int | None = None


@dataclass(frozen=True, slots=True)
class LoseDevices:
    """All devices of the node fail, and answer again after a while, or never in this life."""

    seconds: float | None = None
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """A node that was not there before starts."""

    node: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """A client asks the node to cancel the run."""

    node: int | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """SIGTERM: the node is asked to leave, and its process ends a while later."""

    node: int
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Drain:
    """A client of the node has it take no new work, and some again a while later, or never."""

    node: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Handicap:
    """What calm does not heal, for the rest of the machine's days: `broken` (whatever its engine does fails at once),
    `slow` (it takes five times as long), `read-only` (its disk takes no checkpoint), `mute` (serves nobody a shard)."""

    kind: str
    node: int


@dataclass(frozen=True, slots=True)
class Sever:
    """Two machines never hear each other again; others hear both."""

    one: int
    other: int


@dataclass(frozen=True, slots=True)
class Lose:
    """So large a share of all frames never arrives, until everything heals."""

    share: float


@dataclass(frozen=True, slots=True)
class Poison:
    """Whoever works on this partition of a chain breaks, on every machine: `user` (its code raises always alike) or
    `engine` (it kills the engine)."""

    stage: str
    partition: int
    kind: FailureKind


HANDICAPS = ("broken", "slow", "read-only", "mute")

Fault: TypeAlias = (
    Crash
    | PowerCut
    | Pause
    | Cut
    | Split
    | BreakEngine
    | LoseDevices
    | Join
    | Cancel
    | Leave
    | Drain
    | Handicap
    | Sever
    | Lose
    | Poison
)


def fault_name(kind: type) -> str:
    """The words of its class: `power_cut` of PowerCut."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


FAULTS: Mapping[str, type] = {fault_name(kind): kind for kind in get_args(Fault)}


class FaultTarget(Protocol):
    """What faults are injected into: a world, as far as they know it."""

    @property
    def seed(self) -> int: ...
    @property
    def now(self) -> float: ...
    @property
    def hosts(self) -> Sequence[Host]: ...
    @property
    def network(self) -> Network: ...
    @property
    def runs(self) -> Collection[RunId]:
        """All that were submitted."""

    def note(self, fault: Fault) -> None:
        """Write it into the story."""

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        """Have it happen so much later."""

    def start(self, host: Host) -> None: ...
    def kill(self, host: Host) -> None: ...
    def wake(self, host: Host) -> None: ...
    def deliver(self, host: Host, event: Event) -> None: ...
    def cancel(self, node: int, run: RunId) -> None:
        """As a client of that node."""

    def drain(self, node: int, drained: bool) -> None:
        """As a client of that node."""

    def poison_work(self, stage: str, partition: int, kind: FailureKind) -> None:
        """Every work on that partition of the chain breaks, anywhere."""


Moment: TypeAlias = Callable[[int, int, Action], bool]
"""(node, how many actions that node performed before, the action) -> whether this is it. Asked after each action."""


def action(node: int, index: int) -> Moment:
    """When `node` has performed its `index`-th action (from 0): between any two actions of one event, too."""
    return lambda who, performed, _: who == node and performed == index


def starts(work: type, step: int | None = None, nth: int = 0, node: int | None = None) -> Moment:
    """When for the `nth` time (from 0) a work of this kind is started, anywhere or at `node`."""

    def matches(who: int, action: Action) -> bool:
        if not isinstance(action, Start) or not isinstance(action.work, work):
            return False
        return node in (None, who) and (step is None or action.task.step == step)

    return _nth(matches, nth)


def sends(
    message: type, nth: int = 0, node: int | None = None, where: Callable[[Any], bool] = lambda _: True
) -> Moment:
    """When for the `nth` time a frame with such a message (for which `where` holds) is sent, anywhere or by `node`."""

    def matches(who: int, action: Action) -> bool:
        if not isinstance(action, Send) or node not in (None, who):
            return False
        return any(isinstance(inner, message) and where(inner) for inner in action.message.messages)

    return _nth(matches, nth)


def _nth(matches: Callable[[int, Action], bool], nth: int) -> Moment:
    seen = 0

    def moment(who: int, performed: int, action: Action) -> bool:
        nonlocal seen
        if not matches(who, action):
            return False
        seen += 1
        return seen == nth + 1

    return moment
