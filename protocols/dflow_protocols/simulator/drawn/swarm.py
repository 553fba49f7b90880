"""Worlds drawn from a seed: how many nodes, how noisy, what breaks and when. So runs differ in kind, not in detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from ...names import RunId
from ...pipeline.plan import plan
from ...pipeline.spec import Pipeline
from ..faults import Planned
from ..goals import agree, conclude
from ..model.files import FILES, Answer, Script
from ..model.host import Host
from ..model.provenance import ALIKE, PARAMETER_BYTES
from ..model.work import NOISY, PURE, WILD
from ..spawn import spawn
from ..toy import ROLE
from ..world import World
from .choice import ENGINES, USUAL, Choice
from .drawing.mix import draw_faults, draw_named, draw_power_cut
from .drawing.runs import poison
from .drawing.scene import Scene
from .runs import SECOND_AFTER_S, SECOND_SHARE, draw_pipelines, draw_second, has_roles
from .watch import Watch

DEADLINE_S = 60.0  # for a run to end after everything has healed
PARTITION_S = 1.0  # more for each of its partitions: of a slow machine that works alone
OFFERS_SHARE = 0.5  # of nodes, which offer what a stage requires
POWER_CUT_SHARE = 0.2  # of worlds
ALONE_SHARE = 0.5  # of those with checkpoints, in which nothing else strikes: what has to come back is known
LARGE, LARGE_SHARE = 16, 0.01  # nodes, in so few of the worlds
CLASSES_SHARE = 0.2  # of the worlds whose engines would never agree: they agree within two classes of hosts instead
SLOTS = (1, 1, 1, 2, 3, 8)  # of a node
HOST_SLOTS = (0, 0, 1)  # beside them
FILES_SHARE = 0.4  # of worlds, in which works of the run open files
STANDS = ("here", "here", "late", "late", "never", "goes", "refuses")  # how files stand on a host, but the submitter's
TIGHT = 0  # as little as the run takes: such a store has to shed, or to refuse
ROOMS = (TIGHT, 14, 18)  # of a node's store, in sizes of the parameters; an undisturbed node takes 6
WILD_ROOM = 12  # in the place of a tight one, where updates differ: a node may hold three versions for a while
STATE_ROOM = 3  # of a version: parameters and both moments
LEAST_ROOM = 6  # beside a gradient for each leaf: what who ends a step alone may hold at once


class DrawnWorld:
    """The world of one seed, before anything happens in it."""

    def __init__(
        self, seed: int, choice: Choice = USUAL, digest: bool = False, faults: Sequence[Planned] | None = None
    ) -> None:
        """`faults`: these strike in place of those that are drawn."""
        self._seed = seed
        self._choice = choice
        self._rng = Random(f"swarm/{seed}")
        self.world = _world(seed, self._rng, choice, digest)
        self._watch = Watch(self.world)
        self.planned = () if faults is None else tuple(faults)  # when its run is submitted the drawn ones are known
        self._draws = faults is None
        self._runs: list[RunId] = []

    def live(self) -> None:
        """Its whole life. Raises Violation."""
        self._live()
        self._watch.end()

    def _live(self) -> None:
        world, choice = self.world, self._choice
        world.run(self._rng.uniform(0.5, 3.0))
        submitter = self._rng.randrange(len(world.hosts))
        if choice.work == "none":
            self._draw_faults(Scene(world, choice.trouble_s, submitter))
            world.run(choice.virtual_s)
            agree(world, DEADLINE_S)
            return
        self._submit(_able(world, submitter))
        world.run(choice.virtual_s)
        for run in self._runs:
            conclude(world, run, DEADLINE_S + PARTITION_S * _partitions(world.engines[run].pipeline))
        agree(world, DEADLINE_S)

    def _submit(self, submitter: int) -> None:
        """A run is submitted, and trouble lies ahead."""
        seed, rng, world = self._seed, self._rng, self.world
        nodes = len(world.hosts)
        power = Random(f"swarm/{seed}/power")
        cuts_power = power.random() < POWER_CUT_SHARE
        pipeline, saving = draw_pipelines(seed, rng, self._choice)
        chosen = saving if cuts_power and power.random() < 0.7 else pipeline
        is_alone = chosen is saving and Random(f"swarm/{seed}/alone").random() < ALONE_SHARE
        if world.ledger.alike:  # with and without what is left out gradients could come out alike
            chosen = replace(chosen, on_poison="fail")
        _widen_rooms(world, chosen)
        files = Random(f"swarm/{seed}/files")
        _draw_files(files, world.hosts, chosen, submitter)
        self._runs.append(world.submit(submitter, chosen, files=FILES if files.random() < FILES_SHARE else ()))
        self._submit_second(chosen)
        scene = Scene(world, self._choice.trouble_s, submitter, chosen.on_poison == "skip")
        if self._choice.engine == "poison":
            scene.plan(0.0, poison(rng))
        if cuts_power and self._choice.faults is None:
            draw_power_cut(power, scene, is_alone)
        self._draw_faults(scene, is_alone)
        _draw_files(files, world.hosts[nodes:], chosen, submitter)

    def _submit_second(self, first: Pipeline) -> None:
        """In a part of the worlds there are two; whoever takes the second one may die before anybody else knows."""
        rng, world = Random(f"swarm/{self._seed}/second"), self.world
        is_roomy = all(host.store.limit_bytes is None for host in world.hosts)
        if not self._choice.varies or rng.random() >= SECOND_SHARE or world.ledger.alike or not is_roomy:
            return  # what is alike could not be told apart
        node, pipeline = rng.randrange(len(world.hosts)), draw_second(rng, first)
        world.after(
            rng.uniform(0.0, SECOND_AFTER_S), lambda: self._runs.append(world.submit(node, pipeline, nonce="1"))
        )

    def _draw_faults(self, scene: Scene, is_alone: bool = False) -> None:
        """And plan them, or others in their place. `is_alone`: what is planned already is all of the usual ones."""
        if self._choice.faults is None and not is_alone:
            draw_faults(self._rng, scene)
        elif self._choice.faults is not None:
            draw_named(self._rng, scene, self._choice.faults)
        self.planned = tuple(scene.planned) if self._draws else self.planned
        for moment, fault in self.planned:
            self.world.plan(moment, fault)


def live_through(seed: int, choice: Choice = USUAL, faults: Sequence[Planned] | None = None) -> World:
    """The whole life of one drawn world. `faults`: see DrawnWorld. Raises Violation."""
    drawn = DrawnWorld(seed, choice, faults=faults)
    drawn.live()
    return drawn.world


def _world(seed: int, rng: Random, choice: Choice, digest: bool) -> World:
    """Nodes, engines and stores."""
    drawn = rng.choice([1, 2, 2, 3, 3, 3, 4, 5, 7]), rng.choice([PURE, NOISY, NOISY, WILD])
    is_large = choice.varies and Random(f"swarm/{seed}/large").random() < LARGE_SHARE
    nodes = choice.nodes or (LARGE if is_large else drawn[0])
    noise = drawn[1] if choice.engine is None else ENGINES[choice.engine]
    seeds = (0,) if nodes == 1 else (0, rng.randrange(nodes))
    has_classes = choice.engine is None and noise == WILD and Random(f"swarm/{seed}/classes").random() < CLASSES_SHARE
    alike = Random(f"swarm/{seed}/alike").choice([frozenset(), ALIKE]) if noise is PURE else frozenset()
    slots, host_slots = _of_each(seed, "slots", SLOTS, nodes), _of_each(seed, "host_slots", HOST_SLOTS, nodes)
    world = World(
        spawn,
        nodes=nodes,
        seed=seed,
        seeds=seeds,
        slots=slots,
        host_slots=host_slots,
        roles=_roles(seed, nodes, choice),
        noise=PURE if has_classes else noise,
        classes=2 if has_classes else 1,
        alike=alike,
        digest=digest,
        replay=choice.command(seed),
    )
    room = Random(f"swarm/{seed}/room").choice([None, None, None, *ROOMS])
    room = WILD_ROOM if room == TIGHT and noise != PURE else room
    for host in world.hosts:
        host.store.limit(None if room is None else int(room * PARAMETER_BYTES))
    return world


def _widen_rooms(world: World, pipeline: Pipeline) -> None:
    """As far as it takes for one node to end the run."""
    trainings = [each for step in range(pipeline.schedule.versions) for each in plan(pipeline, step).trainings]
    models, leaves = len(pipeline.trainable), max(each.leaves for each in trainings)
    kept = STATE_ROOM * models if pipeline.schedule.versions > pipeline.schedule.steps else 0
    least = (LEAST_ROOM * models + pipeline.lag + leaves) * PARAMETER_BYTES
    for host in world.hosts:
        if host.store.limit_bytes is not None:
            drawn = host.store.limit_bytes * models
            host.store.limit(max(drawn, least) + kept * PARAMETER_BYTES)


def _roles(seed: int, nodes: int, choice: Choice) -> list[tuple[str, ...]]:
    """What each node offers; one of them at least what a stage may require."""
    if not has_roles(seed, choice):
        return [()]
    rng = Random(f"swarm/{seed}/offers")
    offers = [rng.random() < OFFERS_SHARE for _ in range(nodes)]
    offers[rng.randrange(nodes)] = True
    return [(ROLE,) if each else () for each in offers]


def _able(world: World, submitter: int) -> int:
    """The submitter, or the next node after it that can run every stage: it stays, so that the run can end."""
    count = len(world.hosts)
    order = [(submitter + index) % count for index in range(count)]
    return next((index for index in order if world.hosts[index].roles), submitter)


def _partitions(pipeline: Pipeline) -> int:
    """In all steps, at most."""
    return pipeline.schedule.versions * max(int(stage.config.get("partitions", 1)) for stage in pipeline.stages)


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
