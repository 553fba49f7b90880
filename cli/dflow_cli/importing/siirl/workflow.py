"""A pipeline as siiRL has it: nodes that wait for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ...errors import CliError

TYPES = (
    "COMPUTE",
    "DATA_LOAD",
    "ENV_INTERACT",
    "MODEL_INFERENCE",
    "MODEL_TRAIN",
    "PUT_TO_BUFFER",
    "GET_FROM_BUFFER",
    "BARRIER_SYNC",
    "CUSTOM",
)
ROLES = ("DEFAULT", "ACTOR", "ADVANTAGE", "CRITIC", "ROLLOUT", "REFERENCE", "REWARD", "DYNAMIC_SAMPLING")


@dataclass(frozen=True, slots=True)
class Node:
    """`func`: what it calls, as siiRL writes it (`module:Class.method`, `module.function`); empty where type and role
    say what it does."""

    id: str
    func: str = ""
    needs: tuple[str, ...] = ()
    type: str = "COMPUTE"
    role: str = "DEFAULT"
    forward_only: bool = False
    agent: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)  # dotted keys, in place of the run's for this node
    options: Mapping[str, Any] = field(default_factory=dict)  # of an agent among several

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Node:
        """From plain values by these names."""
        return cls(
            **{item.name: raw[item.name] for item in fields(cls) if item.name in raw} | {"needs": tuple(raw["needs"])}
        )


@dataclass(frozen=True, slots=True)
class Workflow:
    """`nodes`: each after those that it waits for, else as written. `source`: the file, with the function if it is one
    of Python. `files`: modules that lie beside the spec, by the names that `func` has for them."""

    name: str
    nodes: tuple[Node, ...]
    source: str
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def agents(self) -> tuple[int, ...]:
        return tuple(sorted({node.agent for node in self.nodes}))


def make_workflow(name: str, nodes: Sequence[Node], source: str, files: Mapping[str, str] | None = None) -> Workflow:
    """Raises CliError for a graph that siiRL would refuse, too."""
    ids = [node.id for node in nodes]
    for node in nodes:
        if ids.count(node.id) > 1:
            raise CliError(f"there are two nodes `{node.id}`", where=source, hint="rename one of them")
        for known, value, kind in ((TYPES, node.type, "node_type"), (ROLES, node.role, "node_role")):
            if value not in known:
                what = f"node `{node.id}`: there is no {kind} `{value}`"
                raise CliError(what, where=source, hint=f"siiRL has {', '.join(known)}")
        missing = [need for need in node.needs if need not in ids]
        if missing:
            what = f"node `{node.id}` waits for `{missing[0]}`, which is not there"
            raise CliError(what, where=source, hint=f"its nodes are {', '.join(ids)}")
    return Workflow(name, _ordered(nodes, source), source, files or {})


def _ordered(nodes: Sequence[Node], source: str) -> tuple[Node, ...]:
    done: list[Node] = []
    waiting = list(nodes)
    while waiting:
        left = {node.id for node in waiting}
        ready = next((node for node in waiting if left.isdisjoint(node.needs)), None)
        if ready is None:
            what = f"nodes wait for each other: {', '.join(node.id for node in waiting)}"
            raise CliError(what, where=source, hint="a pipeline has no circle; take one dependency out")
        waiting.remove(ready)
        done.append(ready)
    return tuple(done)
