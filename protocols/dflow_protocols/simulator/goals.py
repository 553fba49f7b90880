"""What a scenario waits for and what must hold at its end, seen through the nodes' own books."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ..names import RunId, ShardId
from ..node import Node
from ..run_state.status import CANCELLED, FAILED, FINISHED, STOPPED, outcome
from .invariants import check_chain
from .model.host import Host
from .model.slots import POISON
from .world import World

AGREE_EVERY_S = 0.1  # how often all are compared with all: a thousand nodes, and many events between
MOST_HELPS = 3  # that a person gives one run
FROM_START_HINT = "--from-start"  # in the error of such a run


def node(host: Host) -> Node:
    return cast(Node, host.machine)


def state_at(host: Host, run: RunId) -> str | None:
    """The run's status as a live node has it; None where it never heard of the run."""
    known = node(host).runs.get(run)
    return None if known is None else known.status.state


def ended(world: World, run: RunId, state: str = FINISHED) -> Callable[[], bool]:
    """Every live node says so, and nobody is still to come back."""

    def holds() -> bool:
        settled = not any(host.comes_back for host in world.hosts)
        return settled and all(state_at(host, run) == state for host in world.live())

    return holds


def final_versions(world: World, run: RunId) -> set[str]:
    """What live nodes say that the run ended with."""
    return {outcome(node(host).runs[run].status)["version"] for host in world.live()}


def freed(world: World, run: RunId) -> Callable[[], bool]:
    """No node holds a shard of the run or works on it any more."""

    def holds() -> bool:
        held = any(run in owners for host in world.live() for owners in host.store.runs.values())
        return not held and not any(call.run == run for host in world.live() for call in host.calls.values())

    return holds


def retired(world: World, run: RunId) -> Callable[[], bool]:
    """No disk has more checkpoints of the run than it asks for, but for what cannot be read."""
    keep: int = world.engines[run].pipeline.checkpoint["keep"]

    def holds() -> bool:
        disks = [host.disk for host in world.live()]
        return all(
            sum(kept.run == run and version not in disk.damaged for version, kept in disk.saved.items()) <= keep
            for disk in disks
        )

    return holds


def begin_again(world: World, run: RunId, deadline_s: float) -> bool:
    """Where no checkpoint of the run can be brought back it stops, and begins again when it is told to: tell it.
    Whether that was so; `deadline_s`: for the run to end, this way or another."""
    done, failed = ended(world, run), ended(world, run, FAILED)
    world.run(deadline_s, lambda: done() or failed())
    if not failed() or FROM_START_HINT not in outcome(node(world.live()[0]).runs[run].status)["error"]:
        return False
    world.resume(world.live()[0].index, run, from_start=True)
    return True


def conclude(world: World, run: RunId, deadline_s: float) -> None:
    """From now on calm: the run must end, and leave nothing behind. Clients do what people would: a run that was
    stopped is resumed, one of which no checkpoint can be brought back begins again, and one that waits for members
    that are gone for good goes on. One that was cancelled may be. Of a submit that nobody answered nothing may be left.
    Raises Violation."""
    world.calm()
    world.run(deadline_s, lambda: not any(host.comes_back for host in world.hosts))
    done, cancelled, failed = (ended(world, run, state) for state in (FINISHED, CANCELLED, FAILED))
    for _ in range(MOST_HELPS):
        world.run(deadline_s, lambda: done() or cancelled() or failed() or is_unknown(world, run))
        if done() or cancelled() or is_unknown(world, run) or not _help(world, run):
            break
    if is_unknown(world, run) and not _is_answered(world, run):
        return
    if run in world.cancelled and cancelled():
        finish_cancelled(world, run, deadline_s)
    else:
        finish(world, run, deadline_s)


def is_unknown(world: World, run: RunId) -> bool:
    """Whether no live node has ever heard of the run."""
    return all(state_at(host, run) is None for host in world.live())


def _is_answered(world: World, run: RunId) -> bool:
    """Whether a client was told that the run is taken."""
    return any(ok and value.get("run") == run for host in world.hosts for ok, value in host.replies.values())


def _help(world: World, run: RunId) -> bool:
    """A person has a run go on that waits for one: mends what all fail on, if that is why. Whether it did."""
    for host in world.live():
        known = node(host).runs.get(run)
        if known is None:
            continue
        said = outcome(known.status) if known.status.state == FAILED else {}
        error = said.get("error", "")
        from_start, is_poisoned = FROM_START_HINT in error, POISON in error
        if is_poisoned:
            world.mend_works()
        if said.get(STOPPED) or from_start or is_poisoned or (known.is_active and known.state.is_paused):
            world.resume(host.index, run, from_start)
            return True
    return False


def finish(world: World, run: RunId, deadline_s: float) -> tuple[ShardId, ...]:
    """From now on calm: the run must end everywhere, in one version of one chain, and leave nothing behind.

    Returns the ids of the final parameters. Raises Violation.
    """
    world.calm()
    world.expect(deadline_s, ended(world, run), "every node says that the run has finished", "run_ends")
    world.expect(deadline_s, freed(world, run), "every shard of the finished run is freed", "shards_freed")
    world.expect(deadline_s, lambda: len(final_versions(world, run)) == 1, "nodes end with one version", "one_version")
    world.expect(deadline_s, retired(world, run), "no disk keeps more checkpoints than asked for", "checkpoints_go")
    state = world.saved.get(final_versions(world, run).pop())
    if state is None:
        raise world.violation("the final version was never saved", "version_saved")
    try:
        check_chain(world.engines[run], state)
    except AssertionError as error:
        raise world.violation(str(error), "one_chain") from error
    return tuple(ref.id for name, ref in state if name.startswith("params:"))


def finish_cancelled(world: World, run: RunId, deadline_s: float) -> None:
    """From now on calm: every node must know that the run is cancelled, and hold nothing of it. Raises Violation."""
    world.calm()
    world.expect(deadline_s, ended(world, run, CANCELLED), "every node says that the run is cancelled", "run_ends")
    world.expect(deadline_s, freed(world, run), "every shard of the cancelled run is freed", "shards_freed")


def agree(world: World, deadline_s: float) -> None:
    """From now on calm: all that live must know each other as alive, and nobody else. Raises Violation."""
    world.calm()

    def holds() -> bool:
        living = tuple(sorted(host.id for host in world.live()))
        settled = not any(host.comes_back for host in world.hosts)
        return settled and all(node(host).membership.alive() == living for host in world.live())

    end = world.now + deadline_s
    while world.now < end and not holds():
        world.run(AGREE_EVERY_S)
    world.expect(0.0, holds, "all that live know each other, and nobody else, as alive", "members_agree")
