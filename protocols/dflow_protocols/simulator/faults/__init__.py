"""Faults as data: what machines, networks and runs suffer. `node` is an index; None means whoever set the fault off.

inject.py does them to a target, moments.py tells what sets them off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias, get_args

from .clocks import ClockFault, Drift, Lag, Leap
from .disks import DiskFault, FullDisk, LoseState
from .hosts import (
    HANDICAPS,
    BreakEngine,
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
from .moments import Trigger, action, sends, starts
from .network import Cut, Lose, NetworkFault, Sever, Split
from .runs import Cancel, Poison, RunFault

Fault: TypeAlias = HostFault | DiskFault | ClockFault | NetworkFault | RunFault


def fault_name(kind: type) -> str:
    """The words of its class: `power_cut` of PowerCut."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


FAULTS: Mapping[str, type] = {fault_name(kind): kind for kind in get_args(Fault)}

__all__ = [
    "FAULTS",
    "HANDICAPS",
    "BreakEngine",
    "Cancel",
    "Crash",
    "Cut",
    "Drain",
    "Drift",
    "Fault",
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
    "Pause",
    "Poison",
    "PowerCut",
    "Sever",
    "Split",
    "Trigger",
    "action",
    "fault_name",
    "sends",
    "starts",
]
