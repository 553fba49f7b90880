"""What sets a fault off: an action of a node, told by a predicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ...events import Action, Send, SendThrough, Start

Trigger: TypeAlias = Callable[[int, int, Action], bool]
"""(node, how many actions it performed before, the action) -> whether this sets it off. Asked after each action."""


def action(node: int, index: int) -> Trigger:
    """When `node` has performed its `index`-th action (from 0): between any two actions of one event, too."""
    return lambda who, performed, _: who == node and performed == index


def starts(work: type, step: int | None = None, nth: int = 0, node: int | None = None) -> Trigger:
    """When for the `nth` time (from 0) a work of this kind is started, anywhere or at `node`."""

    def matches(who: int, action: Action) -> bool:
        if not isinstance(action, Start) or not isinstance(action.work, work):
            return False
        return node in (None, who) and (step is None or action.task.step == step)

    return _nth(matches, nth)


def sends(
    message: type, nth: int = 0, node: int | None = None, where: Callable[[Any], bool] = lambda _: True
) -> Trigger:
    """When for the `nth` time a frame with such a message (for which `where` holds) is sent, anywhere or by `node`."""

    def matches(who: int, action: Action) -> bool:
        if not isinstance(action, Send | SendThrough) or node not in (None, who):
            return False
        return any(isinstance(inner, message) and where(inner) for inner in action.message.messages)

    return _nth(matches, nth)


def _nth(matches: Callable[[int, Action], bool], nth: int) -> Trigger:
    seen = 0

    def trigger(who: int, performed: int, action: Action) -> bool:
        nonlocal seen
        if not matches(who, action):
            return False
        seen += 1
        return seen == nth + 1

    return trigger
