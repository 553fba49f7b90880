"""One ROUTER that listens and dials, as both lanes open it: its options, and how long a link may be silent."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import zmq

from ..process.passing import may_pass

DEFAULT = -1  # of an option of TCP: the system's


@dataclass(frozen=True, slots=True)
class LinkTiming:
    """When a link counts as lost, milliseconds. Near the probe timeout, but above what a starved host needs.

    What was sent and is not acknowledged for `silence_ms` ends a link. On one that is idle the peer's process is asked
    every `heartbeat_ms` (0: never) whether it is there, and its kernel after `keepalive_s` (0: never).
    """

    connect_ms: int = 2_000
    heartbeat_ms: int = 1_000
    keepalive_s: int = 0
    silence_ms: int = 5_000
    redial_ms: int = 100
    redial_max_ms: int = 2_000


class BindError(Exception):
    """The lane cannot listen. `address`: what was asked for; `what`: why not, in words; `is_taken`: others do;
    `may_pass`: it may at another start."""

    def __init__(self, address: str, error: zmq.ZMQError) -> None:
        self.is_taken = error.errno == zmq.EADDRINUSE
        self.may_pass = may_pass(error.errno)
        is_foreign = error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL)
        what = "is no address of this host" if is_foreign else (error.strerror or "is no address")
        self.address, self.what = address, "the address is in use" if self.is_taken else what
        super().__init__(f"{address}: {self.what}")


def open_router(
    context: zmq.Context[zmq.Socket[bytes]],
    domain: bytes,
    timing: LinkTiming,
    *,
    longest_bytes: int,
    queue_length: int,
    linger_ms: int,
) -> zmq.Socket[bytes]:
    """`domain`: of its handshakes. `longest_bytes`: of a message; `queue_length`: messages a link and direction;
    `linger_ms`: what is left of a link that is hung up lives on for so long."""
    socket = context.socket(zmq.ROUTER)
    options = {
        zmq.ZAP_ENFORCE_DOMAIN: 1,
        zmq.ROUTER_MANDATORY: 1,
        zmq.MAXMSGSIZE: longest_bytes,
        zmq.SNDHWM: queue_length,
        zmq.RCVHWM: queue_length,
        zmq.LINGER: linger_ms,
        zmq.CONNECT_TIMEOUT: timing.connect_ms,
        zmq.HANDSHAKE_IVL: timing.silence_ms,
        zmq.HEARTBEAT_IVL: timing.heartbeat_ms,
        zmq.HEARTBEAT_TIMEOUT: timing.silence_ms,
        zmq.HEARTBEAT_TTL: timing.silence_ms if timing.heartbeat_ms else 0,
        zmq.TCP_KEEPALIVE: int(timing.keepalive_s > 0),
        zmq.TCP_KEEPALIVE_IDLE: timing.keepalive_s or DEFAULT,
        zmq.TCP_KEEPALIVE_INTVL: timing.silence_ms // 1000,
        zmq.TCP_MAXRT: timing.silence_ms,
        zmq.RECONNECT_IVL: timing.redial_ms,
        zmq.RECONNECT_IVL_MAX: timing.redial_max_ms,
    }
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    for option, value in options.items():
        socket.setsockopt(option, value)
    return socket


def listen(socket: zmq.Socket[bytes], address: str, server_option: zmq.SocketOption) -> str:
    """Bind to `tcp://HOST:PORT` (port 0 or *: a free one) with this mechanism. Returns the actual address; raises
    BindError."""
    socket.setsockopt(server_option, 1)
    allow_ipv6(socket, address)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise BindError(address, error) from None
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def allow_ipv6(socket: zmq.Socket[bytes], address: str) -> None:
    """libzmq has to be told so before it binds or connects."""
    socket.setsockopt(zmq.IPV6, "[" in address)
