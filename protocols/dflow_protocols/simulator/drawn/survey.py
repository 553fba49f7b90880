"""Many drawn worlds, one after the other: what they lived through, and which promises were broken in them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from ...wire.codec import type_name
from ..invariants import Violation
from ..mutations.mutation import Mutation, living
from ..world import World
from .apart import twice
from .choice import Choice
from .swarm import DrawnWorld


@dataclass(frozen=True)
class Lived:
    """What became of one seed's world."""

    seed: int
    nodes: int  # that were there from the beginning
    events: int
    virtual_s: float
    drawn: Counter[str]  # faults that were planned, by name
    struck: Counter[str]  # those of them that met a run at work
    rooms: Counter[str]  # worlds, which is this one or none: whose stores were `limited`, `shed` something, `refused`
    digest: str  # of all that happened
    violation: Violation | None


@dataclass
class Survey:
    """All worlds together."""

    seeds: int = 0
    nodes: int = 0  # of the largest world
    events: int = 0
    virtual_s: float = 0.0
    drawn: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    rooms: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, Violation]] = field(default_factory=list)  # with their seeds
    digest: str = ""  # of all digests

    def add(self, lived: Lived) -> None:
        self.seeds += 1
        self.nodes = max(self.nodes, lived.nodes)
        self.events += lived.events
        self.virtual_s += lived.virtual_s
        self.drawn += lived.drawn
        self.struck += lived.struck
        self.rooms += lived.rooms
        self.digest = hashlib.blake2b((self.digest + lived.digest).encode(), digest_size=16).hexdigest()
        if lived.violation is not None:
            self.violations.append((lived.seed, lived.violation))


def survey(seeds: Iterable[int], choice: Choice, tell: Callable[[Lived], None]) -> Survey:
    """Live through the worlds of these seeds, each twice: one seed is to give one story. `tell`: of each at once."""
    found = Survey()
    for first, second in twice(partial(live_once, choice=choice), seeds):
        lived = compare(first, second, choice)
        found.add(lived)
        tell(lived)
    return found


def hunt(
    mutation: Mutation, seeds: Iterable[int], choice: Choice, tell: Callable[[Lived], None] = lambda lived: None
) -> Survey:
    """Live through these worlds, each once, with a rule broken, until one of them shows it."""
    found, choice = Survey(), replace(choice, mutation=mutation.name)
    for seed in seeds:
        with living(mutation):
            lived = live_once(seed, choice)
        found.add(lived)
        tell(lived)
        if lived.violation is not None:
            break
    return found


def compare(first: Lived, second: Lived, choice: Choice) -> Lived:
    """Of two lives of one seed the first one, to which the second must be equal. A promise that only one of them broke
    is told with that."""
    if first.digest == second.digest:
        return first
    broken = first.violation or second.violation
    what = (
        f"two lives of seed {first.seed} differ: {first.digest} and {second.digest}\n"
        f"replay: {choice.command(first.seed)}"
    ) + ("" if broken is None else f"\nin one of them {broken.invariant} is broken:\n{broken}")
    return replace(first, violation=Violation(what, "one_digest", first.virtual_s))


def live_once(seed: int, choice: Choice) -> Lived:
    """One world, as far as it keeps its promises."""
    drawn, violation = DrawnWorld(seed, choice, digest=True), None
    world, nodes = drawn.world, len(drawn.world.hosts)
    try:
        drawn.live()
    except Violation as broken:
        violation = broken
    planned = Counter(type_name(type(fault)) for _, fault in drawn.planned)
    digest, rooms = world.trace.digest, _rooms(world)
    return Lived(seed, nodes, world.events, world.now, planned, world.struck, rooms, digest, violation)


def _rooms(world: World) -> Counter[str]:
    stores = [host.store for host in world.hosts]
    seen = {
        "limited": any(store.limit_bytes is not None or store.refusals for store in stores),
        "shed": any(store.shed for store in stores),
        "refused": any(store.refusals for store in stores),
    }
    return Counter(name for name, is_so in seen.items() if is_so)
