"""When faults strike: at a time or at an action of a node, as data; or whenever a predicate of a scenario says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, get_args

from ...events import Action, Advanced, Fetch, Persist, Send, SendThrough, Start
from ...wire.codec import type_name
from ...wire.steps import STEP_MESSAGES, SealPut
from ...work import Work

Trigger: TypeAlias = Callable[[int, int, Action], bool]
"""(node, how many actions it performed before, the action) -> whether this sets it off. Asked after each action."""


def _sends(message: type, where: Callable[[Any], bool], action: Action) -> bool:
    """Whether a frame goes out with such a message, for which `where` holds."""
    return isinstance(action, Send | SendThrough) and any(
        isinstance(inner, message) and where(inner) for inner in action.message.messages
    )


def _starts(work: type, action: Action) -> bool:
    return isinstance(action, Start) and isinstance(action.work, work)


EVENTS: Mapping[str, Callable[[Action], bool]] = {
    **{f"send {type_name(kind)}": partial(_sends, kind, lambda _: True) for kind in STEP_MESSAGES},
    **{f"start {type_name(kind)}": partial(_starts, kind) for kind in get_args(Work)},
    "settle": partial(_sends, SealPut, lambda put: put.settled),
    "persist": lambda action: isinstance(action, Persist),
    "fetch": lambda action: isinstance(action, Fetch),
    "advance": lambda action: isinstance(action, Advanced),
}
"""Actions at which a drawn fault may strike, by name. `settle`: a seal is told as settled; `advance`: a version is
held."""


@dataclass(frozen=True, slots=True)
class At:
    """A time of the world."""

    seconds: float


@dataclass(frozen=True, slots=True)
class When:
    """The `nth` time (from 0) from now on that a node, or any, performs an action called `event` in EVENTS."""

    event: str
    nth: int
    node: int | None = None

    def __post_init__(self) -> None:
        assert self.event in EVENTS, f"no event is called {self.event}"

    def trigger(self) -> Trigger:
        happens = EVENTS[self.event]
        return _nth(lambda who, action: self.node in (None, who) and happens(action), self.nth)


Moment: TypeAlias = At | When


def action(node: int, index: int) -> Trigger:
    """When `node` has performed its `index`-th action (from 0): between any two actions of one event, too."""
    return lambda who, performed, _: who == node and performed == index


def starts(work: type, step: int | None = None, nth: int = 0, node: int | None = None) -> Trigger:
    """When for the `nth` time (from 0) a work of this kind is started, anywhere or at `node`."""

    def matches(who: int, action: Action) -> bool:
        is_here = node in (None, who) and _starts(work, action)
        return is_here and isinstance(action, Start) and (step is None or action.task.step == step)

    return _nth(matches, nth)


def sends(
    message: type, nth: int = 0, node: int | None = None, where: Callable[[Any], bool] = lambda _: True
) -> Trigger:
    """When for the `nth` time a frame with such a message (for which `where` holds) is sent, anywhere or by `node`."""
    return _nth(lambda who, action: node in (None, who) and _sends(message, where, action), nth)


def _nth(matches: Callable[[int, Action], bool], nth: int) -> Trigger:
    seen = 0

    def trigger(who: int, performed: int, action: Action) -> bool:
        nonlocal seen
        if not matches(who, action):
            return False
        seen += 1
        return seen == nth + 1

    return trigger
