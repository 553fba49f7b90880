"""The usual mix of faults, or those that were asked for by name.

The first kinds share one stream of chance; each of RARE has one of its own, so that a kind that is added leaves the
others' draws as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ....claiming.failure import Failures
from ...faults import HANDICAPS, BreakEngine, Drain, Fault, Handicap, HangEngine, Sever, When
from ...faults.runs import RunFault
from .clocks import CLOCKS
from .disks import DISKS
from .hosts import HOSTS, crash_and_return, keeps_a_way, power_cut
from .network import NETWORK, lose
from .runs import RUNS
from .scene import Drawer, Scene

LOSS_SHARE = 0.4  # of worlds, in which frames are lost
LASTING_SHARE = 0.4  # of worlds, in which something does not heal
DRAIN_SHARE = 0.3  # of worlds, in which nodes are drained, some for good
SAVES = 7  # that nodes begin in an undisturbed run which saves each version
MOST_BREAKS = Failures.ANY_ERROR  # works that fail in a world; as many may end a run, as they should
DRAWERS: Mapping[str, Drawer] = {**HOSTS, **DISKS, **CLOCKS, **NETWORK, **RUNS}
HEALING = ("crash", "pause", "cut", "split", "break_engine", "join", "leave")
RARE: Mapping[str, float] = {
    "repeat": 0.15,
    "stall": 0.2,
    "fill_queue": 0.15,
    "narrow": 0.15,
    "close_lane": 0.15,
    "hang_engine": 0.1,
    "lose_devices": 0.15,
    "full_disk": 0.15,
    "lose_state": 0.1,
    "fill_store": 0.2,
    "drift": 0.3,
    "leap": 0.1,
    "lag": 0.15,
    "clone": 0.1,
    "cancel": 0.05,
    "stop": 0.08,
    "poison": 0.7,
}
"""Share of the worlds in which a kind of fault is drawn, beside the others."""


def draw_faults(rng: Random, scene: Scene) -> None:
    """The usual mix, from now on."""
    if rng.random() < LOSS_SHARE:
        scene.plan(0.0, lose(rng))
    lasting = _lasting(rng, scene) if rng.random() < LASTING_SHARE else []
    for fault in lasting:
        scene.plan(max(0.0, rng.uniform(-0.3, 2.0)), fault)
    if any(isinstance(fault, Sever) for fault in lasting):
        scene.keep_all()  # the two need somebody between them
    is_broken = any(isinstance(fault, Handicap) and fault.kind == "broken" for fault in lasting)
    scene.count_breaks(MOST_BREAKS if is_broken else 0)
    _draw_some(rng, scene, HEALING, rng.choice([0, 1, 1, 2, 3, 8]))
    _draw_drains(scene.stream("drain"), scene, is_broken)
    for name, share in RARE.items():
        own = scene.stream(name)
        if own.random() < share:
            _draw_some(own, scene, (name,), own.choice([1, 1, 2]))


def draw_named(rng: Random, scene: Scene, names: tuple[str, ...]) -> None:
    """Just these kinds, from now on."""
    if names:
        _draw_some(rng, scene, names, rng.choice([1, 1, 2, 3, 8]))


def draw_power_cut(rng: Random, scene: Scene, is_alone: bool) -> None:
    """`is_alone`: nothing else will strike; then it does as a checkpoint is begun, and not the first."""
    fault = power_cut(rng, scene, scene.submitter)
    if is_alone:
        scene.planned.append((When("start save_work", rng.randrange(1, SAVES)), fault))
    else:
        scene.plan_some_time(rng, fault)


def _draw_some(rng: Random, scene: Scene, kinds: tuple[str, ...], count: int) -> None:
    """So many faults of these kinds, less those that can not be in this scene."""
    for _ in range(count):
        node = rng.randrange(scene.count)
        fault = DRAWERS[kinds[rng.randrange(len(kinds))]](rng, scene, node)
        if fault is None and "crash" in kinds:
            fault = crash_and_return(rng, node)
        if isinstance(fault, RunFault) and not scene.world.runs:
            continue  # it would befall nobody
        breaks = isinstance(fault, BreakEngine | HangEngine)
        scene.count_breaks(breaks)
        if fault is not None and not (breaks and scene.breaks >= MOST_BREAKS):
            scene.plan_some_time(rng, fault)


def _lasting(rng: Random, scene: Scene) -> list[Fault]:
    """What does not heal. The submitter stays whole, so that the run can end; at most one other can compute nothing,
    since an error on three machines is the task's fault."""
    if scene.count == 1:
        return []
    if scene.count >= 4 and rng.random() < 0.3:
        one, other = rng.sample(range(scene.count), 2)
        return [Sever(one, other)]
    found: list[Fault] = []
    for _ in range(rng.randint(1, 2)):
        handicap = Handicap(rng.choice(HANDICAPS), scene.another(rng, scene.submitter))
        is_one_more = any(isinstance(fault, Handicap) and fault.kind == handicap.kind for fault in found)
        if not (handicap.kind == "broken" and is_one_more) and keeps_a_way(handicap, found):
            found.append(handicap)
    return found


def _draw_drains(rng: Random, scene: Scene, is_broken: bool) -> None:
    """Nodes are drained for a while; as long as one that stays works on, for good. Where a host is broken the submitter
    is not: left alone on duty the broken one would be believed, as where there is no other."""
    count = 0 if rng.random() >= DRAIN_SHARE else rng.choice([1, 1, 2, scene.count])
    for _ in range(count):
        node = rng.randrange(scene.count)
        lasts = node not in scene.dead and scene.may_die(node) and rng.random() < 0.4
        if lasts:
            scene.bury(node)
        fault = Drain(node, None if lasts else rng.choice([0.2, 1.0, 5.0]))
        if not (is_broken and node == scene.submitter):
            scene.plan_some_time(rng, fault, first_s=0.0)
