"""What befalls a run alone, as data, and how it is done to it: a client cancels it, work breaks everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ...work import FailureKind
from ..model.host import Host
from .target import FaultTarget, named


@dataclass(frozen=True, slots=True)
class Cancel:
    """A client asks the node to cancel the run."""

    node: int | None = None


@dataclass(frozen=True, slots=True)
class Poison:
    """Whoever works on this partition of a chain breaks, on every machine: `user` (its code raises always alike) or
    `engine` (it kills the engine)."""

    stage: str
    partition: int
    kind: FailureKind


RunFault: TypeAlias = Cancel | Poison


def inject(target: FaultTarget, fault: RunFault, actor: Host | None) -> None:
    match fault:
        case Cancel(node):
            index = named(target, node, actor).index
            for run in target.runs:
                target.after(0.0, partial(target.cancel, index, run))
        case Poison(stage, partition, kind):
            target.poison_work(stage, partition, kind)
