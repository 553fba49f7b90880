"""Who may open a link: ZeroMQ's authentication requests (RFC 27), answered in the lane's own thread.

Owns the handler's socket and frames. Whom to admit is the lane's `admit`; a handler sees every handshake of its
context before the peer gets a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import zmq

from dflow_protocols.names import NodeId

ENDPOINT = "inproc://zeromq.zap.01"  # fixed by RFC 27


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a peer brings. CURVE: (public key,), which it has proved to own. PLAIN: (user, password)."""

    domain: bytes
    address: str
    mechanism: bytes
    credentials: tuple[bytes, ...]


class ZapHandler:
    """Answers the handshakes of one context. Bind it before any other socket of the context.

    `admit` gives the node id that the link then speaks for (its User-Id), or None to refuse.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], admit: Callable[[Handshake], NodeId | None]) -> None:
        self._admit = admit
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ENDPOINT)

    def drain(self) -> None:
        """Answer all that wait. To be called when the socket's FD or a poll says so; never blocks."""
        while True:
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self.socket.send_multipart(self._answer(parts))

    def close(self) -> None:
        self.socket.close()

    def _answer(self, parts: list[bytes]) -> list[bytes]:
        if len(parts) < 7 or parts[0] != b"1.0":
            return [b"1.0", parts[1] if len(parts) > 1 else b"", b"500", b"not RFC 27", b"", b""]
        request, domain, address, _, mechanism, *credentials = parts[1:]
        shake = Handshake(domain, address.decode("utf-8", "replace"), mechanism, tuple(credentials))
        admitted = self._admit(shake)
        if admitted is None:
            return [b"1.0", request, b"400", b"not on the list", b"", b""]
        return [b"1.0", request, b"200", b"", admitted.encode(), b""]
