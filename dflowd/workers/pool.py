"""The workers of one run's code: calls in, their outcomes in order out.

One worker is there when it is first needed; more are started, up to the host's number, while calls wait for longer than
a moment. A call that takes longer than its limit, or whose process ends, costs that call: the process is killed, and
the next call has a fresh one. Who waits is told to, so that it can go on being alive, and can end the waiting.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline.grammar.scoring import Parameter
from dflowd.jobs.failures import UserError
from dflowd.jobs.limits import Limits

from .counts import counts_of
from .outcome import Arguments, Due, Outcome, Signature
from .worker import Worker

TICK_S = 0.5
AT_ONCE_S = 0.01  # that an answer is waited for while nobody else goes on: a quick function needs less
GROW_S = 0.2  # that a call waits before another worker is started for it: a quick function needs one
GRACE_S = 2.0  # beyond its limit that a coroutine may take to be ended by its own process


@dataclass(frozen=True, slots=True)
class Terms:
    """`limit_s`: seconds that a call may take; None: as long as the host lets a call be silent. `at_once`: calls of a
    coroutine function that run beside each other. `ends_at_error`: calls after one that failed need not be made."""

    limit_s: float | None = None
    at_once: int = 1
    ends_at_error: bool = True


class Pool:
    """Workers for the code in `folder`. Several threads may call at once: each has workers of its own meanwhile."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        resting: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resting`: around every wait that is longer than a moment, so that others may go on."""
        self._folder, self.limits, self.resting, self.clock = folder, limits, resting, clock
        self._idle: list[Worker] = []
        self._count = 0  # of all, those in use too
        self._lock = threading.Condition()
        weakref.finalize(self, _end, self._idle)  # who has no use for the pool has none for its processes

    def signature(self, name: str, tick: Callable[[], None]) -> Signature:
        """What the function takes; `tick` is called twice a second meanwhile, and may raise. Raises UserError where it
        cannot be imported."""
        crew = _Crew(self, name, Terms(), tick)
        try:
            return crew.signature()
        finally:
            crew.leave()

    def map(
        self, name: str, calls: Sequence[Arguments], due: Due, terms: Terms, tick: Callable[[], None]
    ) -> list[Outcome]:
        """The outcome of each call, in order; where `ends_at_error`, up to the first that failed. `tick`: as above,
        and called after each outcome. Raises UserError where the function cannot be imported."""
        crew = _Crew(self, name, terms, tick)
        try:
            return crew.map(calls, due)
        finally:
            crew.leave()

    def close(self) -> None:
        """End the workers that nobody uses."""
        with self._lock:
            self._count -= len(self._idle)
            _end(self._idle)

    # Lending --------------------------------------------------------------------------------------------------------

    def lend(self, tick: Callable[[], None] | None) -> Worker | None:
        """A worker for the caller alone. Without `tick`: None if there is none now; else it waits for one."""
        while (worker := self._free()) is None:
            if tick is None:
                return None
            with self.resting(), self._lock:
                self._lock.wait(TICK_S)
            tick()
        return worker

    def lend_keepers(self, conversations: Collection[str]) -> list[Worker]:
        """Those that remember one of them and are used by nobody, for the caller alone."""
        with self._lock:
            keepers = [worker for worker in self._idle if worker.is_alive and any(map(worker.keeps, conversations))]
            for worker in keepers:
                self._idle.remove(worker)
            return keepers

    def _free(self) -> Worker | None:
        with self._lock:
            if not self._idle and self._count >= self.limits.workers:
                return None
            if self._idle and self._idle[-1].is_alive:
                return self._idle.pop()
            if self._idle:
                self._idle.pop().kill()
            else:
                self._count += 1
        try:
            return Worker(self._folder, self.limits)
        except BaseException:
            self.lost()
            raise

    def take_back(self, worker: Worker) -> None:
        with self._lock:
            self._idle.append(worker)
            self._lock.notify()

    def lost(self) -> None:
        """A worker that was lent is no more."""
        with self._lock:
            self._count -= 1
            self._lock.notify()


def _plain(error: str) -> str:
    """As it can be told to everybody: JSON lets halves of characters pass, and UTF-8 does not."""
    return error.encode(errors="backslashreplace").decode()


def _end(workers: list[Worker]) -> None:
    while workers:
        workers.pop().kill()


@dataclass(slots=True, eq=False)
class _Crew:
    """The workers of one caller, while it waits for outcomes of one function."""

    pool: Pool
    name: str
    terms: Terms
    tick: Callable[[], None]
    workers: list[Worker] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # by number of the call, from 1
    signed: Signature | None = None
    again: list[int] = field(default_factory=list)  # calls that were lost with a process for another one's sake
    last: int = 0  # the last call that has to have an outcome
    is_wary: bool = False  # whether a process ended with several calls in it: from then on each has its own

    def signature(self) -> Signature:
        self._hire(self.tick)
        while self.signed is None:
            self._listen(TICK_S)
        return self.signed

    def map(self, calls: Sequence[Arguments], due: Due) -> list[Outcome]:
        self.last, first = len(calls), 1
        waiting = deque(range(1, self.last + 1))
        for worker in self.pool.lend_keepers({call.of for call in calls if call.of}):
            self._join(worker)
        handed_s = self.pool.clock()
        while first <= self.last:
            if not self.workers:
                self._hire(self.tick)
            waiting.extendleft(sorted(self.again, reverse=True))
            self.again.clear()
            if self._hand(waiting, calls, due) or self._is_importing:
                handed_s = self.pool.clock()
            elif self._has_more(waiting, calls) and self.pool.clock() - handed_s > GROW_S:
                self._hire(None)
                handed_s = self.pool.clock()
            self._listen(GROW_S if waiting else TICK_S)
            while first in self.outcomes:
                first += 1
        return [self.outcomes[number] for number in range(1, self.last + 1)]

    def leave(self) -> None:
        """Give the workers back; one that is asked something yet is ended."""
        for worker in self.workers:
            if worker.asked:
                worker.kill()
                self.pool.lost()
            else:
                self.pool.take_back(worker)
        self.workers.clear()

    def _hire(self, tick: Callable[[], None] | None) -> bool:
        worker = self.pool.lend(tick)
        if worker is not None:
            self._join(worker)
        return worker is not None

    def _join(self, worker: Worker) -> None:
        self.workers.append(worker)
        self.signed = worker.signature(self.name) or self.signed
        if worker.signature(self.name) is None:
            worker.load(self.name, self.pool.clock() + self.pool.limits.silence_s)

    @property
    def limit_s(self) -> float:
        return self.pool.limits.silence_s if self.terms.limit_s is None else self.terms.limit_s

    @property
    def _is_importing(self) -> bool:
        return any(0 in worker.asked for worker in self.workers)

    def _hand(self, waiting: deque[int], calls: Sequence[Arguments], due: Due) -> bool:
        """Give calls to workers that have room for them. True if one was given."""
        given = False
        for worker in self.workers:
            if 0 in worker.asked:
                continue
            assert self.signed is not None
            room = self.terms.at_once if self.signed.is_async and not self.is_wary else 1
            while len(worker.asked) < room and (number := self._next(waiting, calls, worker)) is not None:
                call = calls[number - 1]
                limit_s = self.limit_s * (1 if worker.keeps(call.of) else 1 + call.told)
                until_s = self.pool.clock() + limit_s + (GRACE_S if self.signed.is_async else 0.0)
                worker.call(number, self.name, call, due, limit_s, until_s)
                given = True
        return given

    def _next(self, waiting: deque[int], calls: Sequence[Arguments], worker: Worker) -> int | None:
        """Take the first of these calls that is for this worker: not one of a conversation that another remembers."""
        for place, number in enumerate(waiting):
            if number <= self.last and self._keeper(calls[number - 1]) in (None, worker):
                del waiting[place]
                return number
        return None

    def _has_more(self, waiting: deque[int], calls: Sequence[Arguments]) -> bool:
        """Whether another worker would have something to do."""
        return any(number <= self.last and self._keeper(calls[number - 1]) is None for number in waiting)

    def _keeper(self, call: Arguments) -> Worker | None:
        return next((worker for worker in self.workers if call.of and worker.keeps(call.of)), None)

    def _listen(self, seconds: float) -> None:
        """Wait for what workers say, at most so long or until one is late; then `tick`."""
        now = self.pool.clock()
        due_s = min((worker.until_s for worker in self.workers), default=now)
        handles = [handle for worker in self.workers for handle in worker.handles]
        most_s = max(0.0, min(seconds, due_s - now))
        ready = wait(handles, min(most_s, AT_ONCE_S))
        if not ready and most_s > AT_ONCE_S:
            with self.pool.resting():
                ready = wait(handles, most_s - AT_ONCE_S)
        for worker in list(self.workers):
            said = [handle for handle in worker.handles if handle in ready]
            if said:
                self._read(worker, is_over=worker.exit_handle in said)
        now = self.pool.clock()
        for worker in list(self.workers):
            if late := worker.late(now):
                self._bury(worker, self._too_long(is_import=0 in late))
        self.tick()

    def _read(self, worker: Worker, is_over: bool) -> None:
        try:
            for message in worker.heard():
                self._take(worker, message)
                if worker not in self.workers:
                    return
        except EOFError:
            is_over = True
        except (ValueError, TypeError) as error:
            self._bury(worker, f"wrote to its engine what is no answer: {_plain(str(error))}")
            return
        if is_over:
            self._bury(worker, "")

    def _take(self, worker: Worker, message: list[Any]) -> None:
        match message:
            case ["loaded", [*parameters], bool(is_async)]:
                self.signed = Signature(tuple(Parameter(*each) for each in parameters), is_async)
                worker.loaded(self.name, self.signed)
            case ["raised", 0, str(error), _]:
                worker.answered(0)
                raise UserError(_plain(error))
            case ["said", int(number), value, counts] if number in worker.asked:
                self._ended(worker, number, Outcome(value, counts=counts_of(counts)))
            case ["raised", int(number), str(error), counts] if number in worker.asked:
                self._ended(worker, number, Outcome(error=_plain(error), counts=counts_of(counts)))
            case ["late", int(number), _, counts] if number in worker.asked:
                why = self._named(self._too_long(is_import=False))
                self._ended(worker, number, Outcome(error=why, is_of_inputs=False, counts=counts_of(counts)))
            case ["spent", int(number), str(error), _] if number in worker.asked:
                if worker.is_used:  # what it keeps of other calls may be what it lacks: once more, in a fresh one
                    worker.answered(number)
                    self.again.append(number)
                self._bury(worker, f"{_plain(error)} (engine.reward_memory)")

    def _ended(self, worker: Worker, number: int, outcome: Outcome) -> None:
        worker.answered(number)
        self._note(number, outcome)
        self.tick()

    def _note(self, number: int, outcome: Outcome) -> None:
        self.outcomes[number] = outcome
        if outcome.error and self.terms.ends_at_error:
            self.last = min(self.last, number)

    def _bury(self, worker: Worker, why: str) -> None:
        """A worker is of no use any more. What it was asked has failed; of several calls it is not known which one did
        it, so they are made again, each alone. `why`: empty if it ended by itself."""
        asked, how = worker.asked, worker.kill(is_ending=not why)
        self.workers.remove(worker)
        self.pool.lost()
        if 0 in asked:
            raise UserError(f"the import of `{self.name}` {why or how}")
        if len(asked) == 1:
            self._note(asked[0], Outcome(error=self._named(why or how), is_of_inputs=False))
        else:
            self.is_wary |= bool(asked)
            self.again += asked

    def _too_long(self, is_import: bool) -> str:
        if is_import or self.terms.limit_s is None:
            return f"took longer than {self.pool.limits.silence_s:g} s; raise engine.stall_s where it needs more"
        return f"took longer than {self.terms.limit_s:g} s (`timeout_s`)"

    def _named(self, error: str) -> str:
        return f"`{self.name}` {error}"
