"""Faults as data: what machines, networks and runs suffer. `node` is an index; None means whoever set the fault off.

inject.py does them to a target, moments.py tells when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, get_args

from ...wire.codec import type_name
from .clocks import ClockFault, Drift, Lag, Leap
from .disks import DiskFault, FillStore, FullDisk, LoseState
from .hosts import (
    HANDICAPS,
    BreakEngine,
    Clone,
    Crash,
    Drain,
    Handicap,
    HangEngine,
    HostFault,
    Join,
    Leave,
    LoseDevices,
    Pause,
    PowerCut,
)
from .moments import EVENTS, At, Moment, Trigger, When, action, sends, starts
from .network import CloseLane, Cut, FillQueue, Lose, Narrow, NetworkFault, Repeat, Sever, Split, Stall
from .runs import Cancel, Poison, RunFault, Stop

Fault: TypeAlias = HostFault | DiskFault | ClockFault | NetworkFault | RunFault
Planned: TypeAlias = tuple[Moment, Fault]


FAULTS: Mapping[str, type] = {type_name(kind): kind for kind in get_args(Fault)}
"""By the words of its class: `power_cut` is PowerCut."""

__all__ = [
    "EVENTS",
    "FAULTS",
    "HANDICAPS",
    "At",
    "BreakEngine",
    "Cancel",
    "Clone",
    "CloseLane",
    "Crash",
    "Cut",
    "Drain",
    "Drift",
    "Fault",
    "FillQueue",
    "FillStore",
    "FullDisk",
    "Handicap",
    "HangEngine",
    "Join",
    "Lag",
    "Leap",
    "Leave",
    "Lose",
    "LoseDevices",
    "LoseState",
    "Moment",
    "Narrow",
    "Pause",
    "Planned",
    "Poison",
    "PowerCut",
    "Repeat",
    "Sever",
    "Split",
    "Stall",
    "Stop",
    "Trigger",
    "When",
    "action",
    "sends",
    "starts",
]
