"""The daemon's rooms, each made once."""

from __future__ import annotations

from dataclasses import dataclass

from dflow_protocols.names import NodeId
from dflow_protocols.story import Story

from .files.supplies import Supplies
from .observe.recorder import Recorder
from .service.dispatch import Service
from .shards.exchange import Exchange
from .slots.supervisor import Supervisor
from .state.directory import StateDirectory
from .state.disk import Disk
from .transport.control import ControlLane
from .transport.outgoing import Outgoing
from .transport.reach import DialBack
from .transport.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Rooms:
    """All that a node's actions and its peers' frames go to. Nothing is put in later: a room that needs another one is
    given it when it is made."""

    state: StateDirectory
    disk: Disk
    recorder: Recorder
    control: ControlLane
    outgoing: Outgoing
    dial_back: DialBack
    exchange: Exchange
    supplies: Supplies
    supervisor: Supervisor
    service: Service
    story: Story

    def traffic(self) -> dict[str, dict[NodeId, Traffic]]:
        """Bytes sent and received since the start, by lane and peer."""
        return {"control": self.control.traffic.snapshot(), "bulk": self.exchange.traffic()}
