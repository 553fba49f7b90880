"""A supervisor with what a daemon gives it: real engine children (the emulated engine) and a real store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import zmq

from dflow_protocols.events import Broke, Event, Finished, Report, Start
from dflow_protocols.names import RunId, ShardRef, TaskKey, part_of
from dflow_protocols.work import ChainWork, InitWork, Work
from dflowd.process.host import Host
from dflowd.shards.room import Room
from dflowd.shards.spill import SpillFolder
from dflowd.shards.store import Store
from dflowd.slots.devices import Devices
from dflowd.slots.doing import NOTHING, Doing
from dflowd.slots.settings import RunBrief, SupervisorSettings
from dflowd.slots.supervisor import Supervisor
from tests.support.toy import toy_pipeline
from tests.support.until import until_async

RUN = RunId("ab" * 16)
DEADLINE_S = 60.0  # of a hang; an engine starts in a fifth of a second on an idle machine


class Bench:
    """A supervisor with what a daemon gives it, and what it said."""

    def __init__(
        self,
        folder: Path,
        generate_s: float,
        limit_bytes: int,
        silence_s: float,
        stall_s: float,
        is_spilling: bool,
        parameters: int,
        environment: dict[str, str],
        host_slots: int,
        gpus: int,
        raises: int,
        kills: int,
        hangs: int,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = Store(limit_bytes, "bench", SpillFolder(folder / "spill", None if is_spilling else 0))
        self.events: list[Event] = []
        self.reports: list[Report] = []
        host = Host(self.loop, self.events.append, self.reports.append)
        self.room = Room(host, self.store, lambda run, why: None)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        spec = toy_pipeline(
            generate_s=generate_s, parameters=parameters, raises=raises, kills=kills, hangs=hangs
        ).canonical()
        brief = RunBrief(spec, str(folder), str(folder), str(folder / "checkpoints"), "emulated")
        settings = SupervisorSettings(
            slots=max(1, gpus),
            devices=Devices(("simulated",) * gpus, 1),
            folder=folder / "engines",
            environment={**os.environ, **environment},
            silence_s=silence_s,
            stall_s=stall_s,
            host_slots=host_slots,
        )
        self.supervisor = Supervisor(
            host, settings, self.context, self.store, self.room, lambda run, work: brief if run == RUN else None
        )
        self._calls = 0

    def start(self, work: Work, part: str = "p0") -> int:
        self._calls += 1
        self.supervisor.start(Start(self._calls, RUN, TaskKey(0, "roll", part_of(part)), work))
        return self._calls

    async def answer(self, call: int) -> Event:
        """The one answer to a call."""

        def answers() -> list[Event]:
            return [event for event in self.events if isinstance(event, Finished | Broke) and event.call == call]

        await self.until(lambda: bool(answers()))
        (event,) = answers()
        return event

    async def init(self) -> tuple[tuple[str, ShardRef], ...]:
        event = await self.answer(self.start(InitWork(), "init"))
        assert isinstance(event, Finished), event
        return event.done.made[0].outputs

    async def until(self, condition: Callable[[], bool]) -> None:
        await until_async(condition, DEADLINE_S, lambda: (self.events, self.reports))

    @property
    def doing(self) -> Doing:
        """What the first slot's child says that it does."""
        child = self.supervisor._slots[0].child
        return NOTHING if child is None else child.doing

    @property
    def child(self) -> int:
        return int(self.supervisor.standing()["slots"][0]["pid"])

    def is_at_work(self, calls: int = 1) -> bool:
        """Whether the engine is up and inside so many calls."""
        slot = self.supervisor.standing()["slots"][0]
        return bool(slot["task"].count("/") == 2 * calls and slot["numerics"])


@asynccontextmanager
async def bench(
    folder: Path,
    generate_s: float = 0.0,
    limit_bytes: int = 64 << 20,
    silence_s: float = 30.0,
    stall_s: float = 300.0,
    is_spilling: bool = False,
    parameters: int = 300_000,
    environment: dict[str, str] | None = None,
    host_slots: int = 0,
    gpus: int = 0,
    raises: int = 0,
    kills: int = 0,
    hangs: int = 0,
) -> AsyncIterator[Bench]:
    made = Bench(
        folder,
        generate_s,
        limit_bytes,
        silence_s,
        stall_s,
        is_spilling,
        parameters,
        environment or {},
        host_slots,
        gpus,
        raises,
        kills,
        hangs,
    )
    try:
        yield made
    finally:
        made.supervisor.close()
        made.room.close()
        made.store.close()
        made.context.term()


def chain(params: tuple[tuple[str, ShardRef], ...], partition: int = 0, at_once: int = 1) -> ChainWork:
    return ChainWork(0, ("roll", "score", "adv"), partition, params, at_once=at_once)
