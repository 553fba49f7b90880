"""Who must act when an engine ended in the midst of calls: the run's user, or whoever cares for the host; and for which
of several calls it ended, where that can be told."""

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


def blamed(doing: Doing, reason: str, is_stalled: bool, is_own: bool, stage: str) -> Failed:
    """`is_stalled`: it was killed for want of progress. `is_own`: it ended by itself, by an exit or a crash. Of code of
    the user's both are the user's to mend: no other host would do better."""
    if doing.is_user and is_stalled:
        mend = "give what it waits for a time limit, or raise engine.stall_s"
        return Failed("user", f"`{doing.what}` does not return: {reason}; {mend}", stage)
    if doing.is_user and is_own:
        return Failed("user", f"`{doing.what}` ended the engine: {reason}", stage)
    told = f"the engine died while {doing.words}" if doing.what else "the engine died"
    return Failed("engine", f"{told}: {reason}", stage)
