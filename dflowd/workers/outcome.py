"""A call of a user's function: what it takes and is given, what it has to give, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dflow_protocols.pipeline.grammar.scoring import Parameter


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes. `is_async`: it is a coroutine function, of which one process runs several."""

    parameters: tuple[Parameter, ...]
    is_async: bool


MOST_KEPT = 1024  # conversations that a worker remembers: those that were not gone on with longest are forgotten


class Arguments(NamedTuple):
    """By place and by name; all that JSON can say. `of`: the conversation that the call goes on with, whose worker
    remembers `told` turns before it; another one is told them again."""

    placed: tuple[Any, ...]
    named: Mapping[str, Any]
    of: str = ""
    told: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`value`: what it gave, checked: a number, None where it cannot tell, a list of them, or such lists by name; of an
    environment {messages, reward, done}.
    `error`: why there is none, on a line. `is_of_inputs`: whether another host would find the same; not so where a
    limit ended it. `counts`: sums beside that, by the names of dflow_protocols.metrics."""

    value: Any = None
    error: str = ""
    is_of_inputs: bool = True
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Due:
    """What a call has to give: one number, or a list of `count` of them, or such a list for each of `names` (which
    may come without its name where it is the only one). `blank`: names whose numbers may be None. `per_token`: names
    for which a list of numbers takes the place of each number, as many as `lengths` says, [count]. `is_turn`: what an
    environment answers (environment.py) in place of all that."""

    count: int | None = None
    names: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    per_token: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    is_turn: bool = False
