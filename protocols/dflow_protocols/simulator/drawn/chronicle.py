"""A world's life in the lines that matter: what struck, who died, what was sealed and held, and what still waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from ...events import Advanced, Broke, Reply, Report, Send
from ...node import Node
from ...run_state.run_state import RunState
from ...steps.patience import Thing, Wait
from ...wire.steps import SealPut
from ..model.host import Host
from ..trace import brief
from ..world import World

LINE_CHARACTERS = 200
MOST = 8  # works or waits of a node that are told
TOLD_AT = ("info", "warning", "error")  # levels of reports that are told
UNTOLD_REPORTS = ("step.advanced",)  # `holds` says the same of a version


def chronicle(world: World) -> list[str]:
    """What happened, in order; then each node that lives, with what it waits for. Of lines in a row that say the same
    of one node the first is told."""
    words = world.machines.names()
    told: list[str] = []
    last: dict[str, str] = {}
    settled: set[str] = set()
    for now, who, _, thing, _ in world.trace.lines:
        for what in _notable(thing, settled, words):
            if last.get(who) != what:
                told.append(f"{now:9.4f} {who or '*':>4} {what}"[:LINE_CHARACTERS])
            last[who] = what
    return [*told, *(f"in the end {host.name} {_end_of(host, words)}" for host in world.hosts)]


def _notable(thing: Any, settled: set[str], words: dict[str, str]) -> Iterator[str]:
    """`settled`: seals that were told already."""
    match thing:
        case Advanced(_, head, is_copied):
            yield f"holds version {brief(head, words)}, {'copied' if is_copied else 'made here'}"
        case Report(name, fields, level) if level in TOLD_AT and name not in UNTOLD_REPORTS:
            yield f"{name} {brief({key: value for key, value in fields.items() if key != 'run'}, words)}"
        case Broke(_, failed):
            yield f"a work broke: {brief(failed, words)}"
        case Reply(_, ok):
            yield f"answers a client with {'yes' if ok else 'no'}"
        case Send(_, frame):
            for message in frame.messages:
                if isinstance(message, SealPut) and message.settled and message.seal.id not in settled:
                    settled.add(message.seal.id)
                    yield f"settles {brief(message.seal, words)}"
        case _ if not _is_traffic(thing):
            yield brief(thing, words)


def _is_traffic(thing: Any) -> bool:
    """Whether it is an event or action of a node; else a fault, or a life that begins or ends."""
    return type(thing).__module__ == Send.__module__


def _end_of(host: Host, words: dict[str, str]) -> str:
    if host.process is None:
        return "is down"
    told = []
    for run in cast(Node, host.machine).runs.values():
        state = run.state
        own = state.versions.own
        held = "no version" if own is None else f"version {own.step}:{own.id[:6]}"
        waits = [" ".join([wait, *([_brief(of, words)] if of else [])]) for wait, of in _waits(state)]
        works = [str(call.unit) for call in state.calls.values()]
        told.append(f"says {run.status.state}, holds {held}; works on {_some(works)}; waits for {_some(waits)}")
    return f"{'is paused and ' if host.paused else ''}{'; '.join(told) or 'knows of no run'}"


def _waits(state: RunState) -> list[tuple[Wait, Thing]]:
    """What the node's open step waits for, the longest wait first; silent homes, of which there are many, at last."""
    own = state.versions.own
    step = state.steps.get(0 if own is None else own.step)
    since = {} if step is None else step.patience.since
    return sorted(since, key=lambda wait: (wait[0] is Wait.HOME, since[wait]))


def _brief(of: Thing, words: dict[str, str]) -> str:
    return "/".join(brief(part, words) for part in str(of).split("/"))


def _some(things: list[str]) -> str:
    return ", ".join([*things[:MOST], *(["..."] if things[MOST:] else [])]) or "nothing"
