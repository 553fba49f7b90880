"""Worlds drawn from a seed: how many nodes, how noisy, what breaks and when. So runs differ in kind, not in detail."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..claiming.failure import Failures
from ..names import CHUNK_BYTES, RunId
from ..pipeline.spec import Pipeline
from .faults import (
    HANDICAPS,
    BreakEngine,
    Crash,
    Cut,
    Drain,
    Fault,
    Handicap,
    Join,
    Leave,
    Pause,
    PowerCut,
    Sever,
    Split,
)
from .goals import begin_again, finish
from .model.files import FILES, Answer, Script
from .model.host import Host
from .model.provenance import ALIKE, PARAMETER_BYTES
from .model.work import NOISY, PURE, WILD
from .spawn import spawn
from .toy import two_steps, warm_then_two, with_adapters
from .world import World

TROUBLE_S = 5.0  # faults fall within so long after the submit: most of an undisturbed run
CALM_AFTER_S = 12.0  # when everything heals, and from when on the run must end
DEADLINE_S = 60.0  # after that
POWER_CUT_SHARE = 0.2  # of worlds
SLOTS = (1, 1, 1, 2, 3, 8)  # of a node
HOST_SLOTS = (0, 0, 1)  # beside them
RANGES_SHARE = 0.3  # of worlds, in which the parameters lie in three shards, and so do moments and gradients
AT_ONCE = (1, 1, 1, 2, 4)  # partitions that one slot works on together
ADAPTERS_SHARE = 0.2  # of worlds, in which a version holds adapters and names their base
DRAIN_SHARE = 0.3  # of worlds, in which nodes are drained, some for good
FILES_SHARE = 0.4  # of worlds, in which works of the run open files
STANDS = ("here", "here", "late", "late", "never", "goes", "refuses")  # how files stand on a host, but the submitter's
ROOMS = (12, 14, 18)  # of a node's store, in sizes of the parameters; an undisturbed node takes 6


def make(seed: int, digest: bool = False) -> tuple[World, RunId]:
    """A world in which a run was just submitted and trouble lies ahead."""
    rng = Random(f"swarm/{seed}")
    world = _world(seed, rng, digest)
    nodes = len(world.hosts)
    world.run(rng.uniform(0.5, 3.0))
    submitter = rng.randrange(nodes)
    power = Random(f"swarm/{seed}/power")
    cuts_power = power.random() < POWER_CUT_SHARE
    ranges = CHUNK_BYTES if Random(f"swarm/{seed}/ranges").random() < RANGES_SHARE else 0
    together = Random(f"swarm/{seed}/at_once").choice(AT_ONCE)
    pipeline = rng.choice([two_steps, two_steps, warm_then_two])(range_bytes=ranges, at_once=together)
    saving = warm_then_two(every=1, range_bytes=ranges, at_once=together)
    if Random(f"swarm/{seed}/bases").random() < ADAPTERS_SHARE:
        pipeline, saving = with_adapters(pipeline), with_adapters(saving)
    chosen = saving if cuts_power and power.random() < 0.7 else pipeline
    files = Random(f"swarm/{seed}/files")
    _draw_files(files, world.hosts, chosen, submitter)
    run = world.submit(submitter, chosen, files=FILES if files.random() < FILES_SHARE else ())
    start = world.now
    if cuts_power:
        torn = tuple(power.sample(range(nodes), power.randint(0, nodes)))
        cut = PowerCut(power.choice([0.2, 2.0, 8.0]), torn=torn)
        world.at(start + power.uniform(0.3, TROUBLE_S), cut)
    if rng.random() < 0.4:
        world.network.lose_share(rng.choice([0.005, 0.02, 0.1]))
    dead: set[int] = set()
    lasting = _draw_lasting(rng, nodes, submitter) if rng.random() < 0.4 else []
    for fault in lasting:
        world.at(start + rng.uniform(-0.3, 2.0), fault)
    if any(isinstance(fault, Sever) for fault in lasting):
        dead.update(range(nodes))  # nobody else dies for good: the two need somebody between them
    is_broken = any(isinstance(fault, Handicap) and fault.kind == "broken" for fault in lasting)
    breaks = Failures.ANY_ERROR if is_broken else 0
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        fault = _draw(rng, world, dead, submitter)
        breaks += isinstance(fault, BreakEngine)
        if isinstance(fault, BreakEngine) and breaks >= Failures.ANY_ERROR:
            continue  # so many failures may end a run, as they should
        world.at(start + rng.uniform(0.3, TROUBLE_S), fault)
    _draw_files(files, world.hosts[nodes:], chosen, submitter)
    _draw_drains(Random(f"swarm/{seed}/drain"), world, dead, submitter)
    return world, run


def _world(seed: int, rng: Random, digest: bool) -> World:
    """Nodes, engines and stores, before anything happens."""
    nodes = rng.choice([1, 2, 2, 3, 3, 3, 4, 5, 7])
    noise = rng.choice([PURE, NOISY, NOISY, WILD])
    seeds = (0,) if nodes == 1 else (0, rng.randrange(nodes))
    replay = f"python -m dflow_protocols.simulator {seed}"
    alike = Random(f"swarm/{seed}/alike").choice([frozenset(), ALIKE]) if noise is PURE else frozenset()
    slots, host_slots = _of_each(seed, "slots", SLOTS, nodes), _of_each(seed, "host_slots", HOST_SLOTS, nodes)
    world = World(
        spawn,
        nodes=nodes,
        seed=seed,
        seeds=seeds,
        slots=slots,
        host_slots=host_slots,
        noise=noise,
        alike=alike,
        digest=digest,
        replay=replay,
    )
    room = Random(f"swarm/{seed}/room").choice([None, None, None, *ROOMS])
    for host in world.hosts:
        host.store.limit(None if room is None else int(room * PARAMETER_BYTES))
    return world


def _draw_files(rng: Random, hosts: Sequence[Host], pipeline: Pipeline, submitter: int) -> None:
    """How a run's files stand on these hosts. The submitter comes to have them, so that the run can end."""
    for host in hosts:
        stands = "late" if host.index == submitter else rng.choice(STANDS)
        host.answer_files(_script(rng, stands, pipeline))


def _script(rng: Random, stands: str, pipeline: Pipeline) -> Script:
    """What a host says of the run's files, whenever it is asked."""
    first_s, brought_s = rng.choice([0.0, 0.05, 1.0]), rng.choice([0.3, 2.0, 6.0])
    under_way = [Answer(first_s, "1 of 2 files is under way")]
    match stands:
        case "late":
            return (*rng.choice([[], under_way]), Answer(first_s + brought_s))
        case "never":
            return tuple(rng.choice([[], under_way]))
        case "goes":
            return Answer(first_s), Answer(first_s + brought_s, "a disk went"), Answer(first_s + 2 * brought_s)
        case "refuses":
            stages = [stage.id for stage in pipeline.stages]
            return (Answer(first_s, refused=tuple(rng.sample(stages, rng.randint(1, 2)))),)
        case _:
            return (Answer(first_s),)


def _of_each(seed: int, what: str, choices: tuple[int, ...], nodes: int) -> list[int]:
    """What each node has of it."""
    rng = Random(f"swarm/{seed}/{what}")
    return [rng.choice(choices) for _ in range(nodes)]


def _draw_drains(rng: Random, world: World, dead: set[int], submitter: int) -> None:
    """Nodes are drained for a while; as long as one that stays works on, for good."""
    count = 0 if rng.random() >= DRAIN_SHARE else rng.choice([1, 1, 2, len(world.hosts)])
    for _ in range(count):
        node, after_s = rng.randrange(len(world.hosts)), rng.uniform(0.0, TROUBLE_S)
        lasts = node not in dead and node != submitter and len(dead) + 1 < len(world.hosts) and rng.random() < 0.4
        if lasts:
            dead.add(node)
        world.at(world.now + after_s, Drain(node, None if lasts else rng.choice([0.2, 1.0, 5.0])))


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


def _draw(rng: Random, world: World, dead: set[int], submitter: int) -> Fault:
    """One fault; so many nodes stay alive that the run is known to somebody."""
    count = len(world.hosts)
    node = rng.randrange(count)
    lives_on = node != submitter and len(dead) + 1 < count  # the submit itself may be known to one node for a while
    match rng.randrange(7):
        case 0 if lives_on:
            dead.add(node)
            return Crash(node)
        case 1:
            return Pause(rng.choice([0.3, 2.0, 8.0]), node)
        case 2 if count > 1:
            other = (node + 1 + rng.randrange(count - 1)) % count
            return Cut(node, other, rng.choice([1.0, 5.0, 10.0]))
        case 3 if count > 1:
            side = tuple(rng.sample(range(count), rng.randint(1, count - 1)))
            return Split(side, rng.choice([1.0, 4.0, 8.0]), inbound=rng.random() < 0.3)
        case 4:
            return BreakEngine(1, "engine", node)
        case 5:
            return Join(world.add(tuple(range(count))).index)  # whoever is left, it finds them
        case 6 if lives_on:
            dead.add(node)
            return Leave(node)
        case _:
            return Crash(node, rng.choice([0.2, 1.0, 6.0]))


def live_through(seed: int, digest: bool = False) -> World:
    """The whole life of one drawn world. Raises Violation."""
    world, run = make(seed, digest)
    world.run(CALM_AFTER_S)
    world.calm()
    begin_again(world, run, DEADLINE_S)
    finish(world, run, DEADLINE_S)
    return world
