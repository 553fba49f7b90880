"""Calls as they come: each done by its engine, in the baton, and answered.

Works of which a slot does one at a time are done in the main thread, one after the other. Partitions of a chain that
share their slot have a thread each (jobs/baton.py); the main thread then does what they ask it for.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dflow_protocols.events import Broke, Finished
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.work import Done, Failed, at_once, engine_of, needs_device
from dflowd.engines.contract import Engine, perform
from dflowd.jobs.baton import Baton
from dflowd.jobs.failures import one_line
from dflowd.jobs.job import Job
from dflowd.jobs.limits import Limits
from dflowd.jobs.main_thread import ERRANDS
from dflowd.jobs.threads import Threads
from dflowd.slots.calls import Call, Quit, Ready
from dflowd.slots.doing import Board

from .link import Link
from .mapping import MappedShards
from .mappings import Mappings

EXIT_LOST = 71  # a call's thread ended without an answer
PARSED = 8  # specs that are kept: facts that were derived are cached on them


class Performer:
    """Of one process, and for its main thread. `engines`: by name; `threads`: for works on shards; `limits`: of what
    runs users' functions."""

    def __init__(
        self, address: str, engines: Mapping[str, Engine], board: Board, threads: Threads, limits: Limits
    ) -> None:
        self._engines, self._board, self._threads, self._limits = engines, board, threads, limits
        self._mappings, self._baton = Mappings(), Baton(board)
        self._waiting: deque[Call | Quit] = deque()
        self._sharing = 0  # calls that have a thread
        self._is_over = False
        self._parsed: dict[bytes, Pipeline] = {}
        self._link = Link(address, self._deliver, self._mappings.sweep, self._baton)
        capabilities = tuple(dict.fromkeys(word for engine in engines.values() for word in engine.capabilities))
        numerics = " ".join(engine.numerics for engine in engines.values())
        self._link.send(Ready(os.getpid(), capabilities, numerics))

    def serve(self) -> None:
        """Until the daemon wants nothing more."""
        while not self._is_over:
            ERRANDS.get()()
        self._link.close()

    def _deliver(self, message: Call | Quit) -> None:
        """In the link's thread."""
        ERRANDS.put(partial(self._take, message))

    def _take(self, message: Call | Quit) -> None:
        self._waiting.append(message)
        self._go_on()

    def _go_on(self) -> None:
        """Begin what may begin, in the order in which it came."""
        while self._waiting:
            message = self._waiting[0]
            if isinstance(message, Call) and at_once(message.work) > 1:
                self._sharing += 1
                threading.Thread(target=self._share, args=(message,), name=f"call {message.id}", daemon=True).start()
            elif self._sharing:
                return  # it comes when they are done
            elif isinstance(message, Call):
                self._do(message)
            else:
                self._is_over = True
            self._waiting.popleft()

    def _share(self, call: Call) -> None:
        """A call's own thread. Whatever ends it without an answer ends the process: the daemon would wait for ever."""
        try:
            self._do(call)
        except BaseException:
            traceback.print_exc()
            os._exit(EXIT_LOST)
        ERRANDS.put(self._shared)

    def _shared(self) -> None:
        self._sharing -= 1
        self._go_on()

    def _do(self, call: Call) -> None:
        if not self._link.begin(call.id):
            return
        with self._baton.held(call.id):
            match self._answer(call):
                case Done() as done:
                    self._link.answer(Finished(call.id, done))
                case Failed() as failed:
                    self._link.answer(Broke(call.id, failed))

    def _answer(self, call: Call) -> Done | Failed:
        try:
            pipeline = self._pipeline(call.spec)
        except Exception as error:
            return Failed("user", one_line(error))
        link, base, code, folder = self._link, Path(call.base), Path(call.code), Path(call.folder)
        shards = MappedShards(call, link, self._mappings)
        job = Job(
            pipeline,
            base,
            code,
            folder,
            shards,
            link.progress,
            link.leaf,
            self._board,
            link.opaque,
            self._threads,
            self._baton,
            self._limits,
        )
        name = engine_of(pipeline, call.work)
        if needs_device(pipeline, call.work):
            for other in self._engines.keys() - {name}:
                self._engines[other].rest()
        return perform(self._engines[name], job, call.work)

    def _pipeline(self, spec: bytes) -> Pipeline:
        """The spec parsed, once for all calls of a run."""
        if spec not in self._parsed:
            if len(self._parsed) > PARSED:
                self._parsed.clear()
            self._parsed[spec] = Pipeline.from_canonical(spec)
        return self._parsed[spec]
