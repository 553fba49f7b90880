"""What befalls a run alone, as data, and how it is done to it: clients cancel or stop it, work breaks everywhere."""

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
class Stop:
    """A client asks the node to stop the run where it is, and a while later one asks another node to resume it."""

    resumed_by: int
    resumed_after_s: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Poison:
    """Whoever works on this partition of a chain breaks, on every machine: `user` (its code raises always alike) or
    `engine` (it kills the engine). `mended_after_s`: so much later its author has mended it, and a client of
    `resumed_by` resumes what has failed by then; None: it stays as it is."""

    stage: str
    partition: int
    kind: FailureKind
    mended_after_s: float | None = None
    resumed_by: int = 0


RunFault: TypeAlias = Cancel | Stop | Poison


def inject(target: FaultTarget, fault: RunFault, actor: Host | None) -> None:
    match fault:
        case Cancel(node):
            index = named(target, node, actor).index
            for run in target.runs:
                target.after(0.0, partial(target.cancel, index, run))
        case Stop(resumed_by, after_s, node):
            index = named(target, node, actor).index
            for run in target.runs:
                target.after(0.0, partial(target.stop, index, run))
                target.after(after_s, partial(target.resume, resumed_by, run))
        case Poison(stage, partition, kind, mended_after_s, resumed_by):
            target.poison_work(stage, partition, kind)
            if mended_after_s is not None:
                target.after(mended_after_s, partial(_mend, target, resumed_by))


def _mend(target: FaultTarget, resumed_by: int) -> None:
    target.mend_works()
    for run in target.runs:
        target.resume(resumed_by, run)
