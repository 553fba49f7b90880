"""One daemon's life: what is opened in which order, how it ends, and what each room is given.

Nothing listens before the state directory is locked and the incarnation is on disk; nobody is dialled before both
lanes listen. It ends in the opposite order, after the node had its time to hand over what only it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import zmq

from dflow_protocols.events import Event, Leaving, Report, Restored
from dflow_protocols.membership.bootstrap import Seed, decode_peers
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.node import Identity, Node
from dflow_protocols.wire.endpoint import parse_endpoint
from dflow_protocols.wire.gossip import Meta
from dflow_protocols.wire.keys import KEY_CHARACTERS, parse_key

from .boot.config import Config, ConfigError, LogSection
from .boot.facts import host_facts, versions
from .boot.preflight import check_machine
from .driver import Driver
from .effects import RoomHands
from .observe.log import ReportLog, Stream
from .observe.logfile import LogFile
from .observe.metrics import MetricsBook
from .observe.problems import Problems
from .observe.recorder import Recorder
from .observe.timeline import Timeline
from .process.faults import EXIT_FAULT, Faults
from .process.lifetime import age_s, began_ticks
from .process.sdnotify import keep_awake, notify
from .process.stopping import CLOSING_S, StopSignals
from .service.checkpoints import CheckpointAnswers
from .service.dispatch import Myself, Service
from .service.events import EventAnswers
from .service.health import HealthAnswers
from .service.mesh import MeshAnswers
from .service.runs import RunAnswers
from .service.shards import StockAnswers
from .service.work import WorkAnswers
from .shards.exchange import Exchange
from .shards.room import Room
from .shards.segment import Full
from .shards.spill import SpillFolder
from .shards.store import Store
from .slots.devices import Devices, find_devices
from .slots.numerics import advertised_class
from .slots.supervisor import RunBrief, Supervisor
from .state import checkpoints
from .state.directory import StateDirectory
from .state.disk import Disk
from .transport.bulk import BulkLane
from .transport.control import BindError, ControlLane
from .transport.keys import AllowList, KeyPair, new_key_pair, read_key_pair, write_key_pair
from .transport.reach import DialBack

TIMINGS = {"lan": Timing.lan, "wan": Timing.wan, "local": Timing.local}
LEAVE_LOOK_S = 0.02  # how often a leaving daemon looks whether its node is done
SHORTAGE_S = 60.0  # that a run is said to lack room after it was refused some; it asks more often while it does
EXIT_DONE = 0


class Daemon:
    """Made once a process. `path`: the configuration's file, for messages."""

    def __init__(self, config: Config, path: Path, signals: StopSignals) -> None:
        self._config, self._path, self._signals = config, path, signals
        self._started_s = time.time()
        self._stopping = asyncio.Event()
        self._problems = Problems()

    async def run(self) -> int:
        """Start, serve until a signal asks to stop, leave; the process's exit status. Raises ConfigError, KeyFileError
        or StateError before it listens."""
        loop = asyncio.get_running_loop()
        self._driver = Driver(loop)
        with contextlib.ExitStack() as closing:
            self._open(loop, closing)
            faults = Faults(loop, self._recorder.report, self._stopping.set)
            faults.install()
            drive = loop.create_task(self._driver.run(self._node, self._hands))
            drive.add_done_callback(partial(_tell_end, faults))
            self._signals.serve(
                partial(loop.call_soon_threadsafe, self._stopping.set),
                self._config.mesh.leave_timeout_s,
                lambda at: self._recorder.report(Report("daemon.overdue", {"at": at}, "error")),
            )
            self._announce()
            await self._stopping.wait()
            await self._leave(drive)
        return EXIT_FAULT if faults.is_fatal else EXIT_DONE

    # Start ----------------------------------------------------------------------------------------------------------

    def _open(self, loop: asyncio.AbstractEventLoop, closing: contextlib.ExitStack) -> None:
        config = self._config
        log = ReportLog(_open_log(config.log, closing), config.log.level)
        self._state = StateDirectory(config.node.state_dir)
        closing.callback(self._state.close)
        check_machine(config, self._path, self._state)
        self._state.bind_to_machine()
        allow_list = AllowList(config.mesh.allow_list)
        keys = open_keys(config, self._state)
        incarnation = self._state.next_incarnation()
        timeline, metrics = Timeline(), MetricsBook(self._state.run_folder)
        clock = self._driver.wall_clock
        self._recorder = Recorder(log, timeline, metrics, self._problems, clock, self._notice)
        disk = Disk(loop, self._state, self._problems, self._post, self._recorder.report)
        closing.callback(disk.close)
        self._hands = hands = RoomHands(loop, self._state, disk, self._recorder, self._post)
        closing.callback(hands.close)
        devices = self._devices = find_devices()
        spill = SpillFolder(self._state.path / "spill", config.shards.disk_limit)
        self._store = Store(config.shards.memory_limit, config.node.name, spill)
        closing.callback(self._store.close)
        self._room = Room(self._store, loop, self._post)
        self._room.on_refused = self._note_shortage
        closing.callback(self._room.close)
        self._open_lanes(loop, keys, allow_list, closing)
        meta = self._meta(keys, devices)
        self._node = self._make_node(keys.id, incarnation, meta, allow_list)
        hands.supervisor = self._make_supervisor(loop, devices, meta.slots, closing)
        self._open_service(loop, meta)
        self._state.write_address(
            {
                "id": keys.id,
                "name": meta.name,
                "pid": os.getpid(),
                "began": began_ticks(os.getpid()),
                "control": meta.control,
                "bulk": meta.bulk,
                "key": keys.public_text,
            }
        )
        closing.callback(self._state.remove_address)

    def _open_service(self, loop: asyncio.AbstractEventLoop, meta: Meta) -> None:
        me = Myself(
            meta.node,
            meta.name,
            installed_version("dflowd"),
            meta.control,
            meta.bulk,
            os.getpid(),
            self._started_s,
        )
        hands, written = self._hands, self._driver.written
        service = Service(
            loop, me.id, self._node, self._recorder, self._post, hands.send_own, written, hands.control.name_of
        )
        MeshAnswers(service, me, self._engines, self._memory, self._traffic)
        facts = partial(host_facts, self._config, self._devices)
        HealthAnswers(service, facts, self._engines, self._driver.wall_clock)
        self._run_answers = RunAnswers(service, loop, self._driver.wall_clock)
        WorkAnswers(service, meta.slots)
        EventAnswers(service, self._started_s)
        StockAnswers(service, self._node.runs, self._store.listing, lambda: asdict(self._store.usage()))
        CheckpointAnswers(service, loop)
        hands.service = service

    def _open_lanes(
        self, loop: asyncio.AbstractEventLoop, keys: KeyPair, allow_list: AllowList, closing: contextlib.ExitStack
    ) -> None:
        listen, hands = self._config.listen, self._hands
        hands.control = ControlLane(loop, keys, allow_list, hands.on_frame, hands.report, on_revoked=hands.on_revoked)
        closing.callback(hands.control.close)
        self._control_address = self._bind(hands.control.bind, listen.control, "listen.control")
        hands.dial_back = DialBack(loop, keys.id, hands.knock, self._post)
        closing.callback(hands.dial_back.close)
        bulk = BulkLane(keys.id, self._config.trust.fabric)
        try:
            self._bulk_address = self._bind(bulk.bind, listen.bulk, "listen.bulk")
        except ConfigError:
            bulk.close()
            raise
        hands.exchange = Exchange(self._store, self._room, bulk, loop, self._post, hands.report, hands.send_own)
        closing.callback(hands.exchange.close)

    def _bind(self, bind: Any, address: str, key: str) -> str:
        try:
            return str(bind(address))
        except BindError as error:
            hint = f"give {key} the address by which the other nodes reach this host; `ip address` lists its own"
            if error.is_taken:
                hint = f"stop what listens there, or give {key} another port (0 takes a free one)"
            raise ConfigError(f"{self._path}: {key}", f"`{address}`: {error.what}", hint) from None

    def _meta(self, keys: KeyPair, devices: Devices) -> Meta:
        return Meta(
            public_key=keys.public,
            control=self._control_address,
            bulk=self._bulk_address,
            name=self._config.node.name,
            device=devices.text,
            slots=self._config.engine.slots or devices.slots,
            roles=("trainer", *self._config.node.roles),
            facts=(("numerics", advertised_class(devices)), *versions().items()),
            born_ms=int(self._started_s * 1000),
        )

    def _make_node(self, me: NodeId, incarnation: int, meta: Meta, allow_list: AllowList) -> Node:
        peers = self._state.read("peers")
        saved, refused = checkpoints.find(self._state.path)
        for report in refused:
            self._recorder.report(report)
        return Node(
            Identity(me, incarnation, meta),
            TIMINGS[self._config.mesh.timing](),
            random.Random(os.urandom(16)),
            find_seeds(self._config, self._path, allow_list),
            decode_peers(peers) if peers else (),
            [Restored(value, age_s, name) for name, value, age_s in self._state.read_aged("runs")],
            self._driver.clock(),
            steals=os.environ.get("DFLOWD_STEALS", "1") != "0",  # off only to measure what it is worth
            saved=saved,
            unread=[(RunId(r.fields["run"]), f"{r.fields['folder']}: {r.fields['error']}") for r in refused],
        )

    def _make_supervisor(
        self, loop: asyncio.AbstractEventLoop, devices: Devices, slots: int, closing: contextlib.ExitStack
    ) -> Supervisor:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        closing.callback(context.term)
        supervisor = Supervisor(
            loop,
            context,
            self._store,
            self._room,
            devices,
            slots,
            self._config.engine.silence_s,
            self._config.engine.stall_s,
            self._config.node.state_dir / "engines",
            dict(os.environ),
            self._brief,
            self._post,
            self._recorder.report,
            self._driver.clock,
        )
        closing.callback(supervisor.close)
        return supervisor

    def _announce(self) -> None:
        fields = {"name": self._config.node.name, "control": self._control_address, "bulk": self._bulk_address}
        took_s = round(age_s(), 3)
        self._recorder.report(Report("daemon.started", {**fields, "pid": os.getpid(), "took_s": took_s}))
        notify("READY=1")
        keep_awake(asyncio.get_running_loop())

    # While it runs --------------------------------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        self._driver.post(event)

    def _note_shortage(self, run: RunId, why: Full) -> None:
        what = f"run {run} waits for room for its shards: {why}"
        hint = (
            "raise shards.memory_limit or the limit that is named, free some disk, or cancel a run; see `dflow shards`"
        )
        self._problems.note(f"shards.full/{run}", what, hint, SHORTAGE_S, run)

    def _notice(self) -> None:
        self._run_answers.notice()

    def _brief(self, run: RunId) -> RunBrief | None:
        known = self._node.runs.get(run)
        if known is None:
            return None
        status = known.status
        self._state.run_folder(run)
        folder = str(checkpoints.folder_of(self._state.path, run))
        return RunBrief(status.spec, status.base, folder, known.state.pipeline.engine)

    def _engines(self) -> dict[str, Any]:
        supervisor = self._hands.supervisor
        return {"slots": supervisor.describe(), "waiting": supervisor.waiting_count}

    def _memory(self) -> dict[str, Any]:
        return {**memory_bytes(), "shards": asdict(self._store.usage())}

    def _traffic(self) -> dict[str, Any]:
        """Bytes sent and received since the start, by lane and peer."""
        lanes = {"control": self._hands.control.traffic.snapshot(), "bulk": self._hands.exchange.traffic()}
        return {lane: {peer: asdict(count) for peer, count in peers.items()} for lane, peers in lanes.items()}

    # End ------------------------------------------------------------------------------------------------------------

    async def _leave(self, drive: asyncio.Task[None]) -> None:
        notify("STOPPING=1")
        patience_s = max(0.0, self._config.mesh.leave_timeout_s - CLOSING_S)
        self._recorder.report(Report("daemon.leaving", {"patience_s": patience_s}))
        self._post(Leaving())
        until = self._driver.clock() + patience_s
        while not self._node.has_left and self._driver.clock() < until and not drive.done():
            await asyncio.wait([drive], timeout=LEAVE_LOOK_S)
        drive.cancel()
        await asyncio.wait([drive])
        await self._hands.service.close()
        self._recorder.report(Report("daemon.stopped", {"clean": self._node.has_left}))


def _tell_end(faults: Faults, drive: asyncio.Task[None]) -> None:
    """The driver ends only when the daemon leaves."""
    error = None if drive.cancelled() else drive.exception()
    if error is not None:
        faults.tell("the driver", error, is_fatal=True)


def open_keys(config: Config, state: StateDirectory) -> KeyPair:
    """The node's key pair; one in the state directory is made when it is missing. Raises KeyFileError."""
    if config.trust.key_file is not None:
        return read_key_pair(config.trust.key_file)
    path = state.path / "key"
    if not path.exists():
        write_key_pair(path, new_key_pair())
    return read_key_pair(path)


def find_seeds(config: Config, path: Path, allow_list: AllowList) -> tuple[Seed, ...]:
    """Seeds as membership takes them; names are looked up in the allow-list. Raises ConfigError."""
    seeds = []
    for text in config.mesh.seeds:
        if len(text) > KEY_CHARACTERS and text[KEY_CHARACTERS] == "@":
            key, address = text[:KEY_CHARACTERS], text[KEY_CHARACTERS + 1 :]
            try:
                seeds.append(Seed(parse_key(key), parse_endpoint(address).url))
            except ValueError as error:
                raise ConfigError(f"{path}: mesh.seeds", f"`{text}`: {error}", "copy the key as it is listed") from None
            continue
        line = allow_list.named(text)
        if line is None or not line.address:
            what = f"`{text}` has no line with an address in {config.mesh.allow_list}"
            raise ConfigError(f"{path}: mesh.seeds", what, "write KEY@HOST:PORT, or add the address to its line")
        seeds.append(Seed(line.public, f"tcp://{line.address}"))
    return tuple(seeds)


def memory_bytes() -> dict[str, int]:
    """Memory of this process that is in RAM: its own, and that of shards it has mapped itself."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, file, shared = (int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem"))
    return {"resident_bytes": own + file, "mapped_bytes": shared}


def _open_log(section: LogSection, closing: contextlib.ExitStack) -> Stream:
    """Raises ConfigError if the file cannot be written."""
    if section.file is None:
        return sys.stderr
    try:
        file = LogFile(section.file, section.max_bytes, section.keep)
        closing.callback(file.close)
        return file
    except OSError as error:
        raise ConfigError(
            "log.file", f"`{section.file}` cannot be written: {error.strerror}", "name a file in an existing folder"
        ) from None
