"""Which refusals of the operating system may be gone at another start, with the configuration as it is."""

from __future__ import annotations

import errno
import socket

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# ENODEV: how ZeroMQ tells of an address that this host does not have. EAI_AGAIN: a name server that does not answer.
_PASSING = FULL | {errno.EIO, errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENODEV, socket.EAI_AGAIN}


def may_pass(number: int | None) -> bool:
    """`number`: of the error."""
    return number in _PASSING
