"""Fault injection: each kind of fault is done to its target where it is described. Knows the target by its Protocol."""

from __future__ import annotations

from ..model.host import Host
from . import Fault, clocks, disks, hosts, network, runs
from .clocks import ClockFault
from .disks import DiskFault
from .network import NetworkFault
from .runs import RunFault
from .target import FaultTarget


def inject(target: FaultTarget, fault: Fault, actor: Host | None) -> None:
    """`actor`: who set it off; stands for the node that a fault does not name."""
    target.note(fault)
    if isinstance(fault, NetworkFault):
        network.inject(target, fault)
    elif isinstance(fault, RunFault):
        runs.inject(target, fault, actor)
    elif isinstance(fault, DiskFault):
        disks.inject(target, fault, actor)
    elif isinstance(fault, ClockFault):
        clocks.inject(target, fault, actor)
    else:
        hosts.inject(target, fault, actor)
