"""What a descriptor leads to at this moment, and how TCP fares there.

A descriptor is a number that the kernel gives to the next who asks, so a link is known by its ends too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass

SHORT_BYTES = 536  # of a segment: what every host has to take (RFC 9293, 3.7.1); with its headers a packet of 576
FRESH_BYTES = 4 << 10  # a link by which no more arrived may never have carried a long segment
FEW, MANY = 4, 8  # segments and repetitions that were all lost: on a fresh link no chance, on any link none
REPEAT_S = 0.05  # beyond the round trip; above the 40 ms for which kernels may hold an acknowledgement back
ACKNOWLEDGE_S = 0.01  # for which ours may
REPEAT_MOST_S = 1.0  # between two repetitions, however many were lost; kernels take no less
TCP_RTO_MAX_MS, TCP_RTO_MIN_US, TCP_DELACK_MAX_US = 44, 45, 46  # linux/tcp.h, since 2025
ROUND_TRIP_S = 0.05  # for what was repeated to be acknowledged, at least
_INFO = struct.Struct("=2xB21xII12xI4xI12xI48xQQ")  # of struct tcp_info (linux/tcp.h), up to tcpi_bytes_received
_INT = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Ends:
    """What tells a connected TCP socket from any other one that gets its descriptor later."""

    inode: int
    host: str  # of the peer
    port: int
    own_port: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a link, as the kernel tells it."""

    retransmits: int  # in a row, of what was sent first and is not acknowledged
    unacked: int  # segments under way
    sacked: int  # of these: that came before others which did not
    sent_s: float  # since a segment with data was last sent, or repeated
    heard_s: float  # since the peer's last segment with data came
    round_trip_s: float
    acked: int  # bytes of ours that arrived, since the link was opened
    received: int  # bytes
    waiting: int  # bytes of ours that did not arrive yet

    @property
    def is_stalled(self) -> bool:
        """Nothing of all that is under way arrives, though it was repeated, and a short segment would not hold it."""
        return self.retransmits > 0 and not self.sacked and self.waiting > SHORT_BYTES

    def is_deaf(self, stalled_s: float) -> bool:
        """Whether, on a link that has been stalled for so long, the peer's segments arrive and ours do not: it was
        heard meanwhile, and what was repeated after that is not acknowledged either. A cable that was pulled and put
        back is none: there the first repetition after its word arrives."""
        was_heard = self.sent_s < self.heard_s < stalled_s
        return self.retransmits > 1 and was_heard and self.sent_s > max(ROUND_TRIP_S, 2 * self.round_trip_s)

    @property
    def loses_what_is_long(self) -> bool:
        """Whether it is no chance that all which a deaf link had under way was lost. On one that carried long segments
        before it more likely is: many are lost at random there."""
        return self.unacked + self.retransmits >= (FEW if self.acked < FRESH_BYTES else MANY)


def _copied(descriptor: int) -> socket.socket:
    """The socket that a descriptor leads to, under a number of its own. Raises OSError for a file, of which nothing is
    kept open then."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


@contextlib.contextmanager
def held(descriptor: int) -> Iterator[tuple[socket.socket | None, Ends | None]]:
    """What a descriptor leads to at this moment, kept open meanwhile; nothing where that is no connected TCP socket."""
    with contextlib.ExitStack() as closing:
        try:
            link = closing.enter_context(_copied(descriptor))
            if link.family not in (socket.AF_INET, socket.AF_INET6):
                raise OSError("a socket of this host")
            host, port = link.getpeername()[:2]
            found = link, Ends(os.fstat(link.fileno()).st_ino, host, port, link.getsockname()[1])
        except OSError:
            yield None, None
        else:
            yield found


def ends_of(descriptor: int) -> Ends | None:
    """None if the descriptor leads to no connected TCP socket."""
    with held(descriptor) as (_, ends):
        return ends


def progress_of(descriptor: int, noted: Ends) -> Progress | None:
    """How that link fares; None if the descriptor is that link's no more."""
    with held(descriptor) as (link, ends), contextlib.suppress(OSError, struct.error):
        if link is not None and ends == noted:
            info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            again, unacked, sacked, sent_ms, heard_ms, trip_us, acked, received = _INFO.unpack(info)
            (waiting,) = _INT.unpack(fcntl.ioctl(link, termios.TIOCOUTQ, bytes(_INT.size)))
            sent_s, heard_s, trip_s = sent_ms / 1e3, heard_ms / 1e3, trip_us / 1e6
            return Progress(again, unacked, sacked, sent_s, heard_s, trip_s, acked, received, waiting)
    return None


def bytes_received(descriptor: int, noted: Ends) -> int | None:
    """Bytes that the kernel has received on a link; None if the descriptor is that link's no more."""
    progress = progress_of(descriptor, noted)
    return progress.received if progress is not None else None


def is_short(descriptor: int) -> bool:
    """Whether a link has no segments longer than SHORT_BYTES, as its other end asked for when it was opened."""
    with held(descriptor) as (link, _), contextlib.suppress(OSError):
        return link is not None and link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SHORT_BYTES
    return False


def shorten_accepted(listening: int) -> None:
    """Links that this listening socket accepts from now on carry no segments longer than SHORT_BYTES, either way."""
    with _copied(listening) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SHORT_BYTES)


def hasten(descriptor: int, noted: Ends) -> None:
    """What is lost on that link is repeated REPEAT_S after the round trip in place of 200 ms, and after REPEAT_MOST_S
    at the latest in place of two minutes, if the kernel lets programs say so."""
    options = {
        TCP_RTO_MIN_US: round(REPEAT_S * 1e6),
        TCP_RTO_MAX_MS: round(REPEAT_MOST_S * 1e3),
        TCP_DELACK_MAX_US: round(ACKNOWLEDGE_S * 1e6),
    }
    with held(descriptor) as (link, ends):
        if link is None or ends != noted:
            return
        for option, value in options.items():
            with contextlib.suppress(OSError):
                link.setsockopt(socket.IPPROTO_TCP, option, value)
