"""Reachability one way: members that speak to this node but cannot be dialled by it, and those that say so of it.

A member whose announced address is wrong, or closed by a firewall, can join by dialling the others; but nobody could
fetch from it. It is given no work until it was reached. Knows what lanes found out, and nothing of why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..names import NodeId

COMPLAINT_S: Final = 150.0  # a complaint stands for so long; it is made again every minute while it is true
MAX_COMPLAINTS: Final = 64


@dataclass(frozen=True, slots=True)
class Complaint:
    """A member cannot dial this node at `address`."""

    lane: str
    address: str
    until: float


class Reach:
    """By member. All of it is soft: what is true is found out again."""

    def __init__(self) -> None:
        self.unreached: dict[NodeId, dict[str, str]] = {}  # lane -> the address that did not answer
        self.complaints: dict[NodeId, Complaint] = {}

    def fail(self, node: NodeId, lane: str, address: str) -> bool:
        """A lane did not get through to a member that lives. Whether that is news."""
        lanes = self.unreached.setdefault(node, {})
        is_news = lanes.get(lane) != address
        lanes[lane] = address
        return is_news

    def succeed(self, node: NodeId, lane: str) -> bool:
        """A lane got through. Whether the member had been out of reach, and is no more."""
        lanes = self.unreached.get(node)
        if lanes is None or lanes.pop(lane, None) is None:
            return False
        if not lanes:
            del self.unreached[node]
        return not lanes

    def forget(self, node: NodeId) -> None:
        """It is gone, or lives a new life at an address of its own."""
        self.unreached.pop(node, None)
        self.complaints.pop(node, None)

    def complain(self, now: float, source: NodeId, lane: str, address: str) -> bool:
        """A member says that it cannot dial this node. Whether that is news."""
        known = self.complaints.get(source)
        if known is None and len(self.complaints) >= MAX_COMPLAINTS:
            return False
        self.complaints[source] = Complaint(lane, address, now + COMPLAINT_S)
        return known is None or (known.lane, known.address) != (lane, address)

    def expire(self, now: float) -> None:
        for source in [source for source, complaint in self.complaints.items() if complaint.until <= now]:
            del self.complaints[source]
