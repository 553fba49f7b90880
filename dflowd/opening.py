"""What a daemon opens, in which order, and what each room is given.

Nothing listens before the state directory is locked and the incarnation is on disk; nobody is dialled before both
lanes listen. What was opened is closed in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import zmq

from dflow_protocols.events import Report, Restored
from dflow_protocols.membership.bootstrap import decode_peers
from dflow_protocols.membership.table import DRAINED
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import RunId
from dflow_protocols.node import Identity, Node
from dflow_protocols.story import Story
from dflow_protocols.wire.gossip import Meta
from dflow_protocols.work import Work

from .boot.config import Config, ConfigError, HostError, LogSection
from .boot.facts import host_facts, memory_of_host, memory_of_process, versions
from .boot.gpus import gpu_facts
from .boot.identity import find_seeds, open_keys
from .boot.preflight import check_machine
from .driver import Driver
from .effects import Effects
from .files.cache import FileCache
from .files.contents import Contents
from .files.supplies import Supplies
from .incoming import Incoming
from .observe.gpus import GpuWatch
from .observe.idle import Idle
from .observe.journal import Journal
from .observe.log import ReportLog, Stream
from .observe.logfile import LogFile
from .observe.metrics import MetricsBook
from .observe.problems import Problems
from .observe.recorder import Recorder
from .observe.timeline import Timeline
from .process.host import Host
from .process.lifetime import began_ticks
from .process.passing import FULL, may_pass
from .rooms import Rooms
from .service.checkpoints import CheckpointAnswers
from .service.dispatch import Myself, Service
from .service.events import EventAnswers
from .service.files import FileAnswers, holders_of
from .service.health import HealthAnswers
from .service.mesh import DrainAnswers, MeshAnswers
from .service.runs import RunAnswers
from .service.shards import ShardAnswers
from .service.standing import StandingProblems
from .service.stories import StoryAnswers
from .service.work import WorkAnswers
from .shards.exchange import Exchange
from .shards.room import Room
from .shards.spill import SpillFolder
from .shards.store import Store
from .slots.devices import Devices, find_devices
from .slots.numerics import advertised_class
from .slots.optional import child_for, offered
from .slots.settings import RunBrief, SupervisorSettings
from .slots.supervisor import Supervisor
from .state import checkpoints
from .state.directory import StateDirectory, StateError
from .state.disk import Disk
from .transport.bulk import BulkLane
from .transport.control import ControlLane
from .transport.keys import AllowList, KeyPair
from .transport.outgoing import Outgoing
from .transport.reach import DialBack
from .transport.router import BindError

TIMINGS = {"lan": Timing.lan, "wan": Timing.wan, "local": Timing.local}


@dataclass(frozen=True, slots=True)
class Opened:
    """A daemon that listens. `effects` perform what `node` asks for."""

    host: Host
    node: Node
    rooms: Rooms
    effects: Effects
    meta: Meta


class Opening:
    """Opens one daemon. `path`: the configuration's file, for messages. What is opened is closed by `closing`."""

    def __init__(self, config: Config, path: Path, driver: Driver, started_s: float, closing: ExitStack) -> None:
        self._config, self._path, self._driver, self._started_s = config, path, driver, started_s
        self._closing, self._loop = closing, asyncio.get_running_loop()

    def open(self, host_of: Callable[[Recorder], Host]) -> Opened:
        """`host_of` makes the host, once there is who records what it reports. Raises ConfigError, KeyFileError or
        StateError."""
        config, closing = self._config, self._closing
        log = ReportLog(_open_log(config.log, closing), config.log.level, config.log.format)
        state = StateDirectory(config.node.state_dir)
        closing.callback(state.close)
        check_machine(config, self._path, state)
        state.bind_to_machine()
        allow_list = AllowList(config.mesh.allow_list)
        keys = open_keys(config, state.path)
        incarnation = state.next_incarnation()
        journal = Journal(
            state.path / "runs", config.observe.history_limit, lambda report: self._tell(recorder, report)
        )
        closing.callback(journal.close)
        devices = find_devices()
        idle = Idle(self._slots(devices), self._host_slots(devices))
        recorder = Recorder(log, Timeline(journal, self._started_s), MetricsBook(journal), Problems(), idle)
        host = host_of(recorder)
        disk = Disk(host, state, recorder.problems)
        closing.callback(disk.close)
        store, room = self._open_store(host, state, recorder)
        control = ControlLane(host, keys, allow_list)
        closing.callback(control.close)
        control_address = self._bind(control.bind, config.listen.control, "listen.control")
        outgoing = Outgoing(control, keys, host.report)
        dial_back = DialBack(host, keys.id, outgoing.knock)
        closing.callback(dial_back.close)
        bulk, bulk_address = self._open_bulk(keys)
        contents = Contents()
        exchange = Exchange(host, store, room, bulk, outgoing.tell, files=contents, doubt=dial_back.doubt)
        closing.callback(exchange.close)
        meta = self._meta(keys, devices, control_address, bulk_address)
        node = self._make_node(host, state, Identity(keys.id, incarnation, meta), allow_list, devices)
        tell = partial(outgoing.tell_by_any_way, node.membership)
        service = Service(host, keys.id, node, recorder, tell, self._driver.written, control.name_of)
        supplies = self._open_supplies(host, state, contents, store, exchange, service, node)
        brief = partial(_brief, node, state, supplies, meta.roles)
        supervisor = self._make_supervisor(host, store, room, devices, meta.slots, brief)
        story = Story(keys.id)
        rooms = Rooms(
            state, disk, recorder, control, outgoing, dial_back, exchange, supplies, supervisor, service, story
        )
        watch = self._watch_gpus(host, devices, supervisor)
        me = self._myself(meta)
        self._answer(rooms, node, store, devices, me, meta.slots, watch)
        self._export(rooms, node, store, me, watch)
        for run in [run for run, known in node.runs.items() if known.is_active]:
            recorder.metrics.reached(run)  # reads its books now, rather than under way
        incoming = Incoming(host, rooms)
        effects = Effects(host, rooms, incoming)
        closing.callback(effects.close)
        control.start(incoming)
        self._write_address(state, keys, meta)
        return Opened(host, node, rooms, effects, meta)

    def _tell(self, recorder: Recorder, report: Report) -> None:
        """From any thread, until the loop is gone."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(recorder.report, report)

    def _open_store(self, host: Host, state: StateDirectory, recorder: Recorder) -> tuple[Store, Room]:
        shards = self._config.shards
        store = Store(shards.memory_limit, self._config.node.name, SpillFolder(state.path / "spill", shards.disk_limit))
        self._closing.callback(store.close)
        room = Room(host, store, lambda run, why: recorder.note_shortage(run, str(why)))
        self._closing.callback(room.close)
        return store, room

    def _open_supplies(
        self,
        host: Host,
        state: StateDirectory,
        contents: Contents,
        store: Store,
        exchange: Exchange,
        service: Service,
        node: Node,
    ) -> Supplies:
        """Raises StateError."""
        folder = state.path / "files"
        try:
            cache = FileCache(folder, self._config.files.cache_limit, contents)
        except OSError as error:
            raise StateError.unwritable(folder, error) from None
        holders, runs_code = partial(holders_of, service), self._config.trust.run_code
        return Supplies(host, cache, contents, store, exchange, holders, node.runs, runs_code)

    def _open_bulk(self, keys: KeyPair) -> tuple[BulkLane, str]:
        bulk = BulkLane(keys.id, self._config.trust.fabric)
        try:
            return bulk, self._bind(bulk.bind, self._config.listen.bulk, "listen.bulk")
        except ConfigError:
            bulk.close()
            raise

    def _bind(self, bind: Callable[[str], str], address: str, key: str) -> str:
        try:
            return bind(address)
        except BindError as error:
            hint = f"give {key} the address by which the other nodes reach this host; `ip address` lists its own"
            if error.is_taken:
                hint = f"stop what listens there, or give {key} another port (0 takes a free one)"
            raise _refused(error.may_pass)(f"{self._path}: {key}", f"`{address}`: {error.what}", hint) from None

    def _meta(self, keys: KeyPair, devices: Devices, control: str, bulk: str) -> Meta:
        return Meta(
            public_key=keys.public,
            control=control,
            bulk=bulk,
            name=self._config.node.name,
            device=devices.text,
            slots=self._slots(devices),
            roles=("trainer", *self._config.node.roles, *(each.engine for each in offered(devices) if each.release)),
            facts=(("numerics", advertised_class(devices)), *versions().items()),
            born_ms=int(self._started_s * 1000),
        )

    def _slots(self, devices: Devices) -> int:
        return self._config.engine.slots or devices.slots

    def _host_slots(self, devices: Devices) -> int:
        asked = self._config.engine.host_slots
        return devices.host_slots if asked is None else asked

    def _make_node(
        self, host: Host, state: StateDirectory, identity: Identity, allow_list: AllowList, devices: Devices
    ) -> Node:
        peers = state.read("peers")
        saved, refused = checkpoints.find(state.path)
        for report in refused:
            host.report(report)
        return Node(
            identity,
            TIMINGS[self._config.mesh.timing](),
            random.Random(os.urandom(16)),
            find_seeds(self._config, self._path, allow_list),
            decode_peers(peers) if peers else (),
            [Restored(value, age_s, name) for name, value, age_s in state.read_aged("runs")],
            host.clock(),
            steals=os.environ.get("DFLOWD_STEALS", "1") != "0",  # off only to measure what it is worth
            saved=saved,
            host_slots=self._host_slots(devices),
            drained=state.read(DRAINED) is not None,
            unread=[(RunId(r.fields["run"]), f"{r.fields['folder']}: {r.fields['error']}") for r in refused],
        )

    def _make_supervisor(
        self,
        host: Host,
        store: Store,
        room: Room,
        devices: Devices,
        slots: int,
        brief: Callable[[RunId, Work], RunBrief | None],
    ) -> Supervisor:
        engine = self._config.engine
        settings = SupervisorSettings(
            slots=slots,
            devices=devices,
            folder=self._config.node.state_dir / "engines",
            environment=dict(os.environ),
            silence_s=engine.silence_s,
            stall_s=engine.stall_s,
            host_slots=self._host_slots(devices),
            host_threads=engine.host_threads or devices.host_threads,
            workers=max(1, engine.reward_workers // slots) if engine.reward_workers else devices.workers(slots),
            worker_memory=engine.reward_memory,
        )
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._closing.callback(context.term)
        supervisor = Supervisor(host, settings, context, store, room, brief)
        self._closing.callback(supervisor.close)
        return supervisor

    def _watch_gpus(self, host: Host, devices: Devices, supervisor: Supervisor) -> GpuWatch:
        watch = GpuWatch(host, gpu_facts, lambda gpu: supervisor.drain(gpu, "fell off the bus"), supervisor.restore)
        if devices.gpus:
            watch.start()
            self._closing.callback(watch.close)
        return watch

    def _myself(self, meta: Meta) -> Myself:
        release, pid = installed_version("dflowd"), os.getpid()
        return Myself(meta.node, meta.name, release, meta.control, meta.bulk, pid, self._started_s)

    def _answer(
        self, rooms: Rooms, node: Node, store: Store, devices: Devices, me: Myself, slots: int, watch: GpuWatch
    ) -> None:
        """Have all that clients may ask answered."""
        service, engines = rooms.service, rooms.supervisor.standing

        def memory() -> dict[str, Any]:
            return {**memory_of_process(), "host": memory_of_host(), "shards": asdict(store.usage())}

        def traffic() -> dict[str, Any]:
            return {lane: {peer: asdict(it) for peer, it in peers.items()} for lane, peers in rooms.traffic().items()}

        def gpus() -> dict[str, Any]:
            return {"gpus": watch.rows(), "drained": rooms.supervisor.drained()}

        MeshAnswers(service, me, engines, memory, traffic, gpus)
        HealthAnswers(service, partial(host_facts, self._config, devices), gpus, engines, rooms.control.allowed)
        RunAnswers(service)
        DrainAnswers(service)
        StoryAnswers(service, rooms.story, self._started_s)
        WorkAnswers(service, slots)
        EventAnswers(service, self._started_s)
        ShardAnswers(service, node.runs, store.listing, lambda: asdict(store.usage()))
        CheckpointAnswers(service)
        FileAnswers(service, rooms.supplies)

    def _export(self, rooms: Rooms, node: Node, store: Store, me: Myself, watch: GpuWatch) -> None:
        """Have what monitoring asks answered, where it is to be. Raises ConfigError."""
        address = self._config.observe.listen
        if address is None:
            return
        from .exporter.families import Sources  # here: what it needs is installed where it is used
        from .exporter.opening import open_exporter

        sources = Sources(
            me=me,
            node=node,
            recorder=rooms.recorder,
            engines=rooms.supervisor.standing,
            usage=store.usage,
            disk_limit=lambda: store.disk_limit_bytes,
            traffic=rooms.traffic,
            gpus=watch.rows,
            lag_s=self._driver.lag_s,
        )
        standing = StandingProblems(rooms.service)
        try:
            server = open_exporter(self._loop, address, sources, standing.of_the_daemon)
        except OSError as error:
            what, hint = f"`{address}`: {error.strerror or error}", "give it another port, or an own address"
            raise _refused(may_pass(error.errno))(f"{self._path}: observe.listen", what, hint) from None
        self._closing.callback(server.close)
        rooms.recorder.report(Report("exporter.listening", {"port": server.port}))

    def _write_address(self, state: StateDirectory, keys: KeyPair, meta: Meta) -> None:
        state.write_address(
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
        self._closing.callback(state.remove_address)


def _brief(
    node: Node, state: StateDirectory, supplies: Supplies, here: Collection[str], run: RunId, work: Work
) -> RunBrief | None:
    """What an engine must know of a run, whose folder is made with it. Raises OSError."""
    known = node.runs.get(run)
    if known is None:
        return None
    own, pipeline = known.status.base, known.state.pipeline
    state.run_folder(run)
    folder = str(checkpoints.folder_of(state.path, run))
    base, code = supplies.base_of(run, own), supplies.code_of(run, own, pipeline)
    return RunBrief(known.status.spec, base, code, folder, child_for(pipeline, work, here))


def _open_log(section: LogSection, closing: ExitStack) -> Stream:
    """Raises ConfigError if the file cannot be written."""
    if section.file is None:
        return sys.stderr
    try:
        file = LogFile(section.file, section.max_bytes, section.keep)
        closing.callback(file.close)
        return file
    except OSError as error:
        hint = "free some of that disk" if error.errno in FULL else "name a file in an existing folder"
        what = f"`{section.file}` cannot be written: {error.strerror}"
        raise _refused(may_pass(error.errno))("log.file", what, hint) from None


def _refused(passes: bool) -> type[ConfigError]:
    """What to raise where the operating system refuses what the configuration asks for."""
    return HostError if passes else ConfigError
