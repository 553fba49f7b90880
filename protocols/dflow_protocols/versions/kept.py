"""Kept versions: the parameters of an earlier version that all later ones carry along, for stages that ask for them.

A model may be what another one is when a step begins (`version_of`). The version that it begins with has its parameters
under a second role, `kept:NAME`, and each later one has that role as its parent did: the same shards, by their ids. Of
versions before, whom no stage asks for it, the role is their own parameters. So such a model is part of what a node
makes, holds, copies, saves and loads as one version, and takes no byte more until the model that it is of moves on.
"""

from __future__ import annotations

from ..pipeline.spec import Pipeline
from ..ranges import State, in_order, shards_of

PREFIX = "kept:"


def role(model: str) -> str:
    """Of the parameters of a model that is a version of another one."""
    return f"{PREFIX}{model}"


def roles(pipeline: Pipeline) -> dict[str, str]:
    """All that a version has of these, each with the model that it is of."""
    return {role(name): kept.model for name, kept in pipeline.kept.items()}


def numbers(pipeline: Pipeline) -> dict[str, int]:
    """The same, each with the number of the version that it is of."""
    return {role(name): kept.number for name, kept in pipeline.kept.items()}


def own(state: State) -> State:
    """A version's state without these."""
    return tuple((name, ref) for name, ref in state if not name.startswith(PREFIX))


def carry(pipeline: Pipeline, number: int, parent: State | None, state: State) -> State:
    """The state of the version with this number, with what its parent had of these; parent None: it is the first."""
    entries = [
        (role(name), ref)
        for name, kept in pipeline.kept.items()
        for ref in (
            shards_of(state, f"params:{kept.model}")
            if parent is None or number <= kept.number
            else shards_of(parent, role(name))
        )
    ]
    return in_order([*own(state), *entries])


def is_own(pipeline: Pipeline, number: int, state: State) -> bool:
    """Whether what a version has of these may be so, as far as it tells by itself: up to the one that is kept it is its
    own parameters, and as long as those in any case."""
    return all(
        shards_of(state, role(name)) == shards_of(state, f"params:{kept.model}")
        for name, kept in pipeline.kept.items()
        if number <= kept.number
    )
