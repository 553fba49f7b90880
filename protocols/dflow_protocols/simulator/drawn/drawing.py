"""Which faults strike a drawn world, and when: the usual mix, or those that were asked for by name."""

from __future__ import annotations

from random import Random

from ...claiming.failure import Failures
from ..faults import (
    HANDICAPS,
    BreakEngine,
    Cancel,
    Crash,
    Cut,
    Drain,
    Fault,
    Handicap,
    Join,
    Leave,
    Lose,
    LoseDevices,
    Pause,
    Poison,
    PowerCut,
    Sever,
    Split,
)
from ..toy import TOY_PARTITIONS
from ..world import World
from .choice import Choice

LOSS_SHARE = 0.4  # of worlds, in which frames are lost
LASTING_SHARE = 0.4  # of worlds, in which something does not heal
DRAIN_SHARE = 0.3  # of worlds, in which nodes are drained, some for good
MOST_BREAKS = Failures.ANY_ERROR  # works that fail in a world; as many may end a run, as they should
HEALING = ("crash", "pause", "cut", "split", "break_engine", "join", "leave")


def draw_faults(seed: int, rng: Random, world: World, choice: Choice, submitter: int) -> None:
    """The usual mix, from now on."""
    start, nodes = world.now, len(world.hosts)
    if rng.random() < LOSS_SHARE:
        world.at(start, Lose(rng.choice([0.005, 0.02, 0.1])))
    dead: set[int] = set()
    lasting = _draw_lasting(rng, nodes, submitter) if rng.random() < LASTING_SHARE else []
    for fault in lasting:
        world.at(start + rng.uniform(-0.3, 2.0), fault)
    if any(isinstance(fault, Sever) for fault in lasting):
        dead.update(range(nodes))  # nobody else dies for good: the two need somebody between them
    is_broken = any(isinstance(fault, Handicap) and fault.kind == "broken" for fault in lasting)
    _draw_some(rng, world, choice, submitter, dead, HEALING, MOST_BREAKS if is_broken else 0)
    _draw_drains(Random(f"swarm/{seed}/drain"), world, choice, dead, submitter, is_broken)


def draw_named(rng: Random, world: World, choice: Choice, submitter: int) -> None:
    """Just those that were asked for, from now on."""
    if choice.faults:
        _draw_some(rng, world, choice, submitter, set(), choice.faults, 0)


def draw_power_cut(rng: Random, world: World, choice: Choice) -> None:
    nodes = len(world.hosts)
    torn = tuple(rng.sample(range(nodes), rng.randint(0, nodes)))
    cut = PowerCut(rng.choice([0.2, 2.0, 8.0]), torn=torn)
    world.at(world.now + rng.uniform(0.3, choice.trouble_s), cut)


def draw_poison(rng: Random) -> Poison:
    """User code fails on one partition wherever it is tried: the run leaves it out."""
    return Poison("roll", rng.randrange(TOY_PARTITIONS), "user")


def _draw_some(
    rng: Random, world: World, choice: Choice, submitter: int, dead: set[int], kinds: tuple[str, ...], breaks: int
) -> None:
    """A few faults of these kinds. `dead`: who is for good, and comes to be. `breaks`: works that fail already."""
    start, counts = world.now, [0, 1, 1, 2, 3, 8] if kinds is HEALING else [1, 1, 2, 3, 8]
    for _ in range(rng.choice(counts)):
        fault = _draw(rng, world, dead, submitter, kinds)
        breaks += isinstance(fault, BreakEngine)
        if fault is not None and not (isinstance(fault, BreakEngine) and breaks >= MOST_BREAKS):
            world.at(start + rng.uniform(0.3, choice.trouble_s), fault)


def _draw(rng: Random, world: World, dead: set[int], submitter: int, kinds: tuple[str, ...]) -> Fault | None:
    """One fault of these kinds, if the one that was drawn can be here; so many nodes stay alive that the run is known
    to somebody."""
    count = len(world.hosts)
    node = rng.randrange(count)
    lives_on = node != submitter and len(dead) + 1 < count  # the submit itself may be known to one node for a while
    other = (submitter + rng.randrange(1, count)) % count if kinds is not HEALING and count > 1 else None
    match kinds[rng.randrange(len(kinds))]:
        case "crash" if lives_on:
            dead.add(node)
            return Crash(node)
        case "pause":
            return Pause(rng.choice([0.3, 2.0, 8.0]), node)
        case "cut" if count > 1:
            return Cut(node, (node + 1 + rng.randrange(count - 1)) % count, rng.choice([1.0, 5.0, 10.0]))
        case "split" if count > 1:
            side = tuple(rng.sample(range(count), rng.randint(1, count - 1)))
            return Split(side, rng.choice([1.0, 4.0, 8.0]), inbound=rng.random() < 0.3)
        case "break_engine":
            return BreakEngine(1, "engine", node)
        case "join":
            return Join(world.add(tuple(range(count))).index)  # whoever is left, it finds them
        case "leave" if lives_on:
            dead.add(node)
            return Leave(node)
        case "lose":
            return Lose(rng.choice([0.005, 0.02, 0.1]))
        case "lose_devices":
            return LoseDevices(rng.choice([0.5, 3.0]), node)
        case "power_cut":
            return PowerCut(rng.choice([0.2, 2.0, 8.0]), torn=tuple(rng.sample(range(count), rng.randint(0, count))))
        case "drain":
            return Drain(node, rng.choice([0.2, 1.0, 5.0]))
        case "cancel":
            return Cancel(node)
        case "poison":
            return draw_poison(rng)
        case "handicap" if other is not None:
            return Handicap(rng.choice([kind for kind in HANDICAPS if kind != "broken"]), other)
        case "sever" if count >= 4 and not dead:
            dead.update(range(count))  # the two need somebody between them
            return Sever(*rng.sample(range(count), 2))
        case _ if "crash" in kinds:
            return Crash(node, rng.choice([0.2, 1.0, 6.0]))
    return None


def _draw_lasting(rng: Random, nodes: int, submitter: int) -> list[Fault]:
    """What does not heal. The submitter stays whole, so that the run can end; at most one other can compute nothing,
    since an error on three machines is the task's fault."""
    if nodes == 1:
        return []
    if nodes >= 4 and rng.random() < 0.3:
        one, other = rng.sample(range(nodes), 2)
        return [Sever(one, other)]
    found: list[Fault] = []
    for _ in range(rng.randint(1, 2)):
        kind, node = rng.choice(HANDICAPS), (submitter + rng.randrange(1, nodes)) % nodes
        if kind != "broken" or not any(isinstance(fault, Handicap) and fault.kind == kind for fault in found):
            found.append(Handicap(kind, node))
    return found


def _draw_drains(rng: Random, world: World, choice: Choice, dead: set[int], submitter: int, is_broken: bool) -> None:
    """Nodes are drained for a while; as long as one that stays works on, for good. Where a host is broken the submitter
    is not: left alone on duty the broken one would be believed, as where there is no other."""
    count = 0 if rng.random() >= DRAIN_SHARE else rng.choice([1, 1, 2, len(world.hosts)])
    for _ in range(count):
        node, after_s = rng.randrange(len(world.hosts)), rng.uniform(0.0, choice.trouble_s)
        lasts = node not in dead and node != submitter and len(dead) + 1 < len(world.hosts) and rng.random() < 0.4
        if lasts:
            dead.add(node)
        fault = Drain(node, None if lasts else rng.choice([0.2, 1.0, 5.0]))
        if not (is_broken and node == submitter):
            world.at(world.now + after_s, fault)
