"""Telling a service manager how the daemon is: systemd's sd_notify protocol, where it asked for it.

A datagram to the socket that $NOTIFY_SOCKET names. While the loop turns, it is told so too, twice in each
$WATCHDOG_USEC: a daemon whose loop hangs is then started afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket


def notify(message: str) -> None:
    """Say `READY=1` and the like; nothing happens where nobody asked."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
        line.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


def keep_awake(loop: asyncio.AbstractEventLoop) -> None:
    """From now on tell the manager's watchdog, if it has one for this process, that the loop turns."""
    interval_us = os.environ.get("WATCHDOG_USEC", "")
    if interval_us.isdigit() and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        notify("WATCHDOG=1")
        loop.call_later(int(interval_us) / 2e6, keep_awake, loop)
