"""Lag: the parameters of earlier versions that a version carries along, for steps that sample from them.

With `lag: k` step s of the pipeline samples from the version that began step s - k. So each version's state has, beside
its own, the parameters of the k versions before it that began a step: roles `lag1:MODEL` to `lagK:MODEL`, the same
shards that those versions had. Before there were so many it is version 0. What a node needs to sample any step that may
be open to it is therefore part of what it holds, copies, saves and loads as one version, and its id covers it.

Where each step makes one update each version begins one, and these are the k versions before it. Where a step makes
several, only the first of them takes its parent's parameters along: the next ones carry the same as it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from ..names import Coefficients, content_id
from ..pipeline.spec import Pipeline
from ..ranges import State, in_order, shards_of
from ..wire.steps import Header
from . import kept

PREFIX = "lag"


class Source(Protocol):
    """What a chain reads the parameters of, and by which name its records say so."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> State: ...

    @property
    def coefficients(self) -> Coefficients: ...


@dataclass(frozen=True)
class Sampled:
    """Parameters that rollouts of a run with a lag are sampled from. Named by their content: the same ones are in the
    states of several versions, under other roles. `state`: their `base:` and `params:` entries, and what they keep of
    earlier versions."""

    state: State
    coefficients: Coefficients = ()  # rewards of what is sampled ahead go by none (pipeline/defaults.py)

    @cached_property
    def id(self) -> str:
        return content_id("sampled", [[name, ref.id] for name, ref in self.state])


def role(behind: int, model: str) -> str:
    """Of the parameters that a model had so many steps before; 0: of its own."""
    return f"params:{model}" if behind == 0 else f"{PREFIX}{behind}:{model}"


def roles(pipeline: Pipeline) -> dict[str, str]:
    """All that a version carries along, each with the model that it is of."""
    return {role(behind, model): model for behind in range(1, pipeline.lag + 1) for model in pipeline.sampled}


def own(state: State) -> State:
    """A version's state without what it carries along."""
    return tuple((name, ref) for name, ref in state if not name.startswith(PREFIX))


def carry(pipeline: Pipeline, parent: Header | None, state: State) -> State:
    """The whole state of a version: its own, and what it carries along from its parent, if it has one."""
    has_begun = parent is not None and pipeline.schedule.place(parent.step).update == 0
    carried = [
        (role(behind, model), ref)
        for behind in range(1, pipeline.lag + 1)
        for model in pipeline.sampled
        for ref in (
            shards_of(state, role(0, model))
            if parent is None
            else shards_of(parent.state, role(behind - has_begun, model))
        )
    ]
    return in_order([*own(state), *carried])


def sampled(pipeline: Pipeline, version: Header, number: int) -> Source:
    """What is sampled from the version `number`, which began a step, as this later one has it; this one itself where
    there is no lag."""
    if not pipeline.lag:
        return version
    place = pipeline.schedule.place(version.step)
    behind = place.step + (place.update > 0) - pipeline.schedule.place(number).step
    entries = [
        (role(0, model), ref) for model in pipeline.sampled for ref in shards_of(version.state, role(behind, model))
    ]
    entries += [
        (name, ref)
        for name, kept_at in kept.numbers(pipeline).items()
        if kept_at <= number  # else it is not what it will be, and would have another name in each version
        for ref in shards_of(version.state, name)
    ]
    bases = [(name, ref) for name, ref in version.state if name.startswith("base:")]
    return Sampled(in_order([*bases, *entries]))
