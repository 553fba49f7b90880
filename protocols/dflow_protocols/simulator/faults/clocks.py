"""What befalls a machine's time, as data, and how it is done to it: clocks that drift or leap, late processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ..model.host import Host
from .target import FaultTarget, named


@dataclass(frozen=True, slots=True)
class Drift:
    """The node's clock runs at another pace from now on, for good."""

    pace: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Leap:
    """The node's clock leaps forward by so much, as when a virtual machine is moved."""

    forward_s: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """For a while all that happens waits so long in the node's process before it is handled: others keep the host busy,
    or it swaps."""

    lag_s: float
    seconds: float
    node: int | None = None


ClockFault: TypeAlias = Drift | Leap | Lag


def inject(target: FaultTarget, fault: ClockFault, actor: Host | None) -> None:
    host = named(target, fault.node, actor)
    match fault:
        case Drift(pace):
            host.clock.run_at(pace, target.now)
            target.arm(host)
        case Leap(forward_s):
            host.clock.leap(forward_s)
            target.arm(host)
        case Lag(lag_s, seconds):
            host.lag(lag_s)
            target.after(seconds, partial(host.lag, 0.0))
