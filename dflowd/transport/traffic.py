"""How many bytes went to and came from each peer, for metrics and for tests of what a step costs."""

from __future__ import annotations

from dataclasses import dataclass

from dflow_protocols.names import NodeId


@dataclass(slots=True)
class Traffic:
    """Bytes of frames, without what ZeroMQ and TCP add."""

    sent: int = 0
    received: int = 0


class TrafficTable:
    """Counts by peer. Written by one thread; `snapshot` may be taken by any."""

    def __init__(self) -> None:
        self._by_peer: dict[NodeId, Traffic] = {}

    def sent(self, peer: NodeId, nbytes: int) -> None:
        known = self._of(peer)
        known.sent += nbytes

    def received(self, peer: NodeId, nbytes: int) -> None:
        known = self._of(peer)
        known.received += nbytes

    def snapshot(self) -> dict[NodeId, Traffic]:
        return {peer: Traffic(it.sent, it.received) for peer, it in list(self._by_peer.items())}

    def _of(self, peer: NodeId) -> Traffic:
        known = self._by_peer.get(peer)
        if known is None:
            known = self._by_peer[peer] = Traffic()
        return known
