"""The daemons of a mesh as a list: how each is, what it does, and how much of the work it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dflow_protocols.membership.claim import is_up

from ..output import amount, seconds
from .gpus import gpu_line
from .listing import Column, Listing

Node = Mapping[str, Any]


def nodes_listing(answer: Mapping[str, Any], is_narrow: bool) -> Listing:
    """Of a daemon's answer to `nodes`. `is_narrow`: what may be long stands in lines below."""
    nodes = sorted(answer["nodes"], key=_by_name)
    works = [node.get("work") or {} for node in nodes]
    columns = [
        Column("id", [str(node["id"])[:8] for node in nodes], 9),
        Column("name", [str(node["name"]) for node in nodes]),
        Column("state", [state_of(node) for node in nodes]),
        Column("share", [_share(node.get("share")) for node in nodes], 2),
        Column("load", [f"{work['load']:.1f}/{work['cores']}" if work else "-" for work in works], 3),
        Column("memory", [_memory(work.get("memory")) for work in works], 5),
        Column("shards", [_shards(work.get("memory")) for work in works], 6),
        Column("seen", [_seen(node.get("seen_s")) for node in nodes], 4),
        Column("version", [str((node.get("facts") or {}).get("dflowd", "-")) for node in nodes], 8),
        Column("device", [str(node.get("device") or "-") for node in nodes], 7),
        Column("slots", [str(node.get("slots") or "-") for node in nodes], 7),
        Column("offers", [_roles(node) for node in nodes], 6),
        Column("control", [str(node.get("control") or "-") for node in nodes], 10),
        Column("incarnation", [str(node.get("incarnation")) for node in nodes], 11),
        Column("running", [_running(work.get("running") or ()) for work in works]),
    ]
    withdrawn = {str(node["name"]): _withdrawn(node) for node in nodes}
    if not is_narrow:
        columns.append(Column("withdrawn from", list(withdrawn.values()), 12))
        withdrawn = {}
    lines = [f"{name} withdrew from {what}" for name, what in withdrawn.items() if what]
    lines += [f"{node['name']}: {line}" for node in nodes if (line := gpu_line(node))]
    lines += _pairs(nodes)
    return Listing(columns, lines)


def state_of(node: Node) -> str:
    """As the member that was asked sees it; of one that is well and takes no work, that."""
    return "drained" if node["state"] == "alive" and node.get("is_drained") else str(node["state"])


def _running(tasks: Sequence[Mapping[str, Any]]) -> str:
    """The oldest task, and how many run beside it."""
    if not tasks:
        return "-"
    more = f" +{len(tasks) - 1}" if len(tasks) > 1 else ""
    return f"{tasks[0]['id']} {seconds(tasks[0]['for_s'])}{more}"


def _share(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.0f} %"


def _memory(memory: Mapping[str, Any] | None) -> str:
    """How full the host's is, whoever uses it."""
    return f"{100 - 100 * memory['available'] / memory['total']:.0f} %" if memory else "-"


def _shards(memory: Mapping[str, Any] | None) -> str:
    """What the daemon's store has in memory."""
    return amount(memory["shards"]) if memory else "-"


def _seen(ago_s: float | None) -> str:
    """When it was last heard, in whole seconds: in a list that is drawn anew more would only flicker."""
    return "-" if ago_s is None else seconds(round(ago_s))


def _roles(node: Node) -> str:
    """What stages may require, beside what every node of its device offers."""
    return ", ".join(role for role in node.get("roles") or [] if role != "trainer")


def _withdrawn(node: Node) -> str:
    """Stages that fail on this node, and why."""
    return "; ".join(f"{each['stage']}: {each['error']}" for each in node.get("withdrawn") or [])


def _pairs(nodes: Sequence[Node]) -> list[str]:
    """Members that live and cannot talk to each other, each pair once, whichever of the two says so. One may tell of
    members that are dead, in case they come back."""
    place = {node["id"]: index for index, node in enumerate(nodes) if is_up(node["state"])}
    said = [
        (index, place[other]) for index, node in enumerate(nodes) for other in node.get("apart") or () if other in place
    ]
    names = [str(node["name"]) for node in nodes]
    pairs = sorted({(min(pair), max(pair)) for pair in said})
    return [f"{names[one]} cannot talk to {names[other]}: others pass on what they say" for one, other in pairs]


def _by_name(node: Node) -> tuple[int, str]:
    """n2 before n10."""
    name = str(node.get("name", ""))
    return len(name), name
