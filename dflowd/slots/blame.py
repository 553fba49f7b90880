"""What is told of calls in whose midst an engine ended, and for which of several it did, where that can be known."""

from __future__ import annotations

import signal
from collections.abc import Collection

from dflow_protocols.work import Failed

from .doing import Doing

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that somebody else sends, such as the kernel to a process that takes too much memory."""


def suspects(doing: Doing, left: Collection[int]) -> frozenset[int]:
    """Of the calls that an engine left, by their numbers, those of which any may have ended it: what it did was theirs.
    The others have nothing to do with it."""
    return frozenset(left).intersection(doing.calls) or frozenset(left)


def blamed(doing: Doing, reason: str, stage: str) -> Failed:
    """What ends an engine is its host's or its library's: code of the run's user runs in workers."""
    told = f"the engine died while {doing.what}" if doing.what else "the engine died"
    return Failed("engine", f"{told}: {reason}", stage)
