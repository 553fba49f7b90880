"""The state directory's disk, while the daemon lives: whether it has room, and what could not be written yet.

A full disk never ends the daemon. What could not be kept is tried again every few seconds, and until then the node
vouches for nothing of it; what a full disk keeps from being done (checkpoints, shards past the memory limit) others
do. All methods are for the loop's thread.
"""

from __future__ import annotations

from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

from dflow_protocols.events import NotPersisted, Persist, Persisted, Report

from ..observe.problems import Problems
from ..process.host import Host
from ..shards.spill import size_text
from .directory import StateDirectory

LEAST_FREE_BYTES = 64 << 20  # below that a daemon does not start, and a running one says so
LOOK_INTERVAL_S = 5.0
KEY, HINT = "disk", "free some of this disk, or give node.state_dir a larger one"


class Disk:
    """Writes in order, off the loop. Tells the node what is kept and what is not."""

    def __init__(self, host: Host, state: StateDirectory, problems: Problems) -> None:
        self._loop, self._state, self._problems = host.loop, state, problems
        self._post, self._report = host.post, host.report
        self.worker = ThreadPoolExecutor(1, "disk")
        self._unkept: dict[str, Persist] = {}  # the newest write of each key, where it failed
        self._is_full = False
        self._next = host.loop.call_later(LOOK_INTERVAL_S, self._check)

    async def write(self, asked: Persist) -> None:
        """Keep a value; on disk when this returns. Raises OSError: then it is tried again, later on, if it may be."""
        was_unkept = self._unkept.pop(asked.key, None) is not None  # an older value must not be written after this one
        try:
            await self._write(asked)
        except OSError as error:
            if not asked.or_never:
                self._unkept[asked.key] = asked
            self.is_refused(f"`{asked.key}` cannot be kept: {error.strerror}")
            self._post(NotPersisted(asked.key, asked.or_never))
            raise
        if was_unkept:
            self._post(Persisted(asked.key))

    def is_refused(self, what: str) -> None:
        """The disk would not take something."""
        if not self._is_full:
            self._report(Report("disk.full", {"what": what}, "error"))
        self._is_full = True
        self._problems.note(KEY, what, HINT)

    def close(self) -> None:
        self._next.cancel()
        self.worker.shutdown(wait=True)

    def _write(self, asked: Persist) -> Awaitable[None]:
        return self._loop.run_in_executor(self.worker, self._state.write, asked.key, asked.value, asked.age_s)

    def _check(self) -> None:
        self._task = self._loop.create_task(self._check_again())
        self._next = self._loop.call_later(LOOK_INTERVAL_S, self._check)

    async def _check_again(self) -> None:
        """Try what failed once more, and see how much is free."""
        for key, asked in list(self._unkept.items()):
            if self._unkept.get(key) is not asked:  # a newer value was written meanwhile
                continue
            try:
                await self._write(asked)
            except OSError:
                return
            if self._unkept.get(key) is asked:
                del self._unkept[key]
                self._post(Persisted(key))
        try:
            free = await self._loop.run_in_executor(self.worker, self._state.free_bytes)
        except OSError as error:
            self.is_refused(f"{self._state.path} cannot be looked at: {error.strerror}")
            return
        if free < LEAST_FREE_BYTES:
            self.is_refused(f"{size_text(free)} are free in {self._state.path}")
        elif self._is_full:
            self._is_full = False
            self._problems.clear(KEY)
            self._report(Report("disk.roomy", {"free_bytes": free}))
