"""The way to one holder: a session is offered, then ready, then (with an address) dialled. For one thread."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from dflow_protocols.names import NodeId, ShardId
from dflow_protocols.wire.bulk import KEY_BYTES, TOKEN_BYTES, Ask, SessionOffer
from dflowd.transport.bulk import BulkLane

OFFER_INTERVAL_S = 0.5  # the control lane may lose an offer
LIFELESS_BYTES = 8 << 10  # a link brings so much without bringing anything


@dataclass(slots=True)
class Holder:
    """Of one node. `waiting`: what it is to be asked."""

    address: str = ""
    offer: SessionOffer | None = None
    is_ready: bool = False
    is_dialled: bool = False
    offer_again_at: float = inf
    waiting: list[Ask] = field(default_factory=list)  # at most the credit
    received: int = 0  # bytes over its present link, when that was last asked
    is_awaited: bool = False  # it was asked and has not answered all

    def offer_session(self, now: float) -> SessionOffer:
        """The offer to make now: the one that was not answered yet, or a new one."""
        if self.offer is None:
            self.offer = SessionOffer(secrets.token_bytes(TOKEN_BYTES), secrets.token_bytes(KEY_BYTES))
        self.offer_again_at = now + OFFER_INTERVAL_S
        return self.offer

    def accepts(self, token: bytes) -> bool:
        """Whether this is the session that was offered."""
        return self.offer is not None and self.offer.token == token

    def ready(self) -> None:
        self.is_ready = True

    def move(self, address: str) -> None:
        self.address = address

    def dial(self, lane: BulkLane, peer: NodeId) -> bool:
        """Open its link, if it is time for that. False: its address is none."""
        if self.offer is None or not self.is_ready or not self.address:
            return True
        self.is_dialled = lane.dial(peer, self.address, self.offer.token, self.offer.key)
        return self.is_dialled

    def keep_asks(self, wanting: Callable[[ShardId], object]) -> None:
        """Of what waits to be sent, those for shards that somebody still wants."""
        self.waiting = [ask for ask in self.waiting if wanting(ask.shard)]

    def note_received(self, received: int) -> bool:
        """So many bytes have come over its link. Whether that is more news than a handshake and signs of life make."""
        before, self.received = self.received, received
        return received - before > LIFELESS_BYTES

    def ask(self, received: int) -> None:
        """It is asked for something; what came before is no answer."""
        self.is_awaited, self.received = True, received

    def rest(self) -> None:
        """It has answered all."""
        self.is_awaited = False

    def forget_session(self) -> None:
        """The next ask makes a new one; asks that were not sent are void with those that were."""
        self.offer, self.is_ready, self.is_dialled, self.offer_again_at = None, False, False, inf
        self.received, self.is_awaited = 0, False
        self.waiting.clear()
