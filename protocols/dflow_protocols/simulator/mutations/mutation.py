"""A mutation: one rule of the protocol is broken on purpose, to see that drawn worlds notice.

A named function, method or constant is another one while a world lives. The protocols know nothing of it; the
simulator's own modules keep what they imported, since checkers must not break with what they check.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

PROTOCOLS = __name__.partition(".")[0]
SIMULATOR = __name__.rpartition(".mutations")[0]

Places: TypeAlias = list[tuple[Any, str, Any]]  # owner, name, what is bound there
_broken: list[tuple[Places, Places]] = []  # by each mutation that lives: what was there before, and what is now


@dataclass(frozen=True)
class Mutation:
    """`rule`: of docs/protocol.md. `target`: `room.module:Class.method` or `room.module:name`. `make`: gives what
    takes its place, from what is there. `unseen`: why drawn worlds cannot show it, and which test holds the rule."""

    name: str
    rule: str
    target: str
    make: Callable[[Any], Any]
    unseen: str = ""


@contextmanager
def living(mutation: Mutation) -> Iterator[None]:
    """The mutation holds within. Raises LookupError where its target is gone."""
    places = [(owner, name, vars(owner)[name]) for owner, name in _places(mutation)]
    changed = mutation.make(places[0][2])
    now = [(owner, name, changed) for owner, name, _ in places]
    _set(now)
    _broken.append((places, now))
    try:
        yield
    finally:
        _broken.pop()
        _set(places)


@contextmanager
def whole() -> Iterator[None]:
    """Within, every rule holds again: what a broken world is compared with."""
    for before, _ in reversed(_broken):
        _set(before)
    try:
        yield
    finally:
        for _, now in _broken:
            _set(now)


def _set(places: Places) -> None:
    for owner, name, value in places:
        setattr(owner, name, value)


def _places(mutation: Mutation) -> list[tuple[Any, str]]:
    """Where the target is bound: its class, or its module and all that imported it."""
    room, _, path = mutation.target.partition(":")
    module = importlib.import_module(f"{PROTOCOLS}.{room}")
    owner_name, _, name = path.rpartition(".")
    owner = getattr(module, owner_name, None) if owner_name else module
    if owner is None or name not in vars(owner):
        raise LookupError(f"mutation {mutation.name}: there is no {mutation.target}")
    if owner_name:
        return [(owner, name)]
    users = [
        each
        for known, each in sorted(sys.modules.items())
        if known.startswith(PROTOCOLS) and not known.startswith(SIMULATOR) and each is not module
    ]
    target = vars(module)[name]
    bound = [
        (user, called)
        for user in users
        for called, value in vars(user).items()
        if value is target and (called == name or callable(target))
    ]
    return [(module, name), *bound]


def gives(value: Any) -> Callable[[Any], Any]:
    """A function that gives this, whatever it is given."""
    return lambda original: lambda *_, **__: value


def becomes(value: Any) -> Callable[[Any], Any]:
    """Another constant."""
    return lambda original: value
