"""What each fault does, on a target that is no world."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from dflow_protocols.events import Action, Event, Leaving
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.simulator.faults import (
    BreakEngine,
    Cancel,
    Clone,
    CloseLane,
    Crash,
    Cut,
    Drain,
    Drift,
    Fault,
    FillQueue,
    FillStore,
    FullDisk,
    Handicap,
    HangEngine,
    Join,
    Lag,
    Leap,
    Leave,
    LoseState,
    Narrow,
    Pause,
    Poison,
    PowerCut,
    Repeat,
    Sever,
    Split,
    Stall,
    Stop,
)
from dflow_protocols.simulator.faults.inject import inject
from dflow_protocols.simulator.faults.target import FaultTarget
from dflow_protocols.simulator.model.bulk import BulkLane
from dflow_protocols.simulator.model.clock import HostClock
from dflow_protocols.simulator.model.disk import Writes
from dflow_protocols.simulator.model.files import Search
from dflow_protocols.simulator.model.host import Host, Process
from dflow_protocols.simulator.model.network import Lanes, Network
from dflow_protocols.simulator.model.schedule import Life, Schedule
from dflow_protocols.simulator.model.slots import Site, Slots

RUN = RunId("ab" * 16)


class Nothing:
    """A machine that does nothing."""

    deadline = float("inf")

    must_act = False

    def take(self, now: float, event: Event) -> None:
        pass

    def act(self, now: float) -> list[Action]:
        return []

    def check(self) -> None:
        pass


def _host(index: int, place: int | None = None) -> Host:
    """`place`: of its own index, but for a copy."""
    where = NodeId(f"n{index if place is None else place}")
    return Host(index if place is None else place, NodeId(f"n{index}"), where, HostClock(0.0), ())


class Machines:
    """Machines and a network; what is done to them is written down."""

    def __init__(self, count: int = 3) -> None:
        self.seed = 1
        self.network = Network(Random(1))
        self.hosts = [_host(index) for index in range(count)]
        self.runs = (RUN,)
        self.schedule = Schedule()
        self.done: list[tuple[object, ...]] = []
        for host in self.hosts:
            self.start(host)
        self.done.clear()

    @property
    def now(self) -> float:
        return self.schedule.now

    def note(self, fault: object) -> None:
        pass

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self.schedule.after(seconds, then)

    def start(self, host: Host) -> None:
        life = Life(self.schedule, Random(1), lambda event: None)
        slots = Slots(1, 0, life, Site({}, {}), host.store, host.disk, host.health)
        lanes = Lanes(host.id, life, self.network)
        bulk = BulkLane(life, host.store, lanes, lambda holder: None, lambda asked: True)
        host.run(Process(Nothing(), life, slots, bulk, Search(life), lanes, Writes(life, host.disk), lambda: None))
        self.done.append(("start", host.index))

    def kill(self, host: Host) -> None:
        host.lose_memory()
        self.done.append(("kill", host.index))

    def copy(self, host: Host) -> Host:
        self.hosts.append(_host(host.index, len(self.hosts)))
        self.done.append(("copy", host.index))
        return self.hosts[-1]

    def wake(self, host: Host) -> None:
        host.wake()
        self.done.append(("wake", host.index))

    def arm(self, host: Host) -> None:
        self.done.append(("arm", host.index))

    def deliver(self, host: Host, event: Event) -> None:
        self.done.append(("deliver", host.index, event))

    def cancel(self, node: int, run: RunId) -> None:
        self.done.append(("cancel", node, run))

    def stop(self, node: int, run: RunId) -> None:
        self.done.append(("stop", node, run))

    def resume(self, node: int, run: RunId) -> None:
        self.done.append(("resume", node, run))

    def drain(self, node: int, drained: bool) -> None:
        self.done.append(("drain", node, drained))

    def poison_work(self, stage: str, partition: int, kind: str) -> None:
        self.done.append(("poison", stage, partition, kind))

    def mend_works(self) -> None:
        self.done.append(("mend",))

    def inject(self, fault: Fault, actor: int | None = None) -> None:
        target: FaultTarget = self
        inject(target, fault, None if actor is None else self.hosts[actor])

    def cuts(self) -> set[tuple[str, str]]:
        return {(str(source), str(to)) for source, to in self.network.cuts}


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        (Crash(1), [("kill", 1)]),
        (Crash(1, restart_after_s=2.0), [("kill", 1), ("start", 1)]),
        (Crash(), [("kill", 0)]),
        (Clone(2.0, None, 1), [("copy", 1), ("start", 3)]),
        (Clone(2.0, 1.0, 1), [("copy", 1), ("kill", 1), ("start", 1), ("start", 3)]),
        (Pause(1.0, 2), [("wake", 2)]),
        (Cancel(), [("cancel", 0, RUN)]),
        (Join(1), []),  # it is there
        (Drain(1), [("drain", 1, True)]),
        (Drain(1, 5.0), [("drain", 1, True), ("drain", 1, False)]),
        (Leave(1), [("deliver", 1, Leaving()), ("kill", 1)]),
        (Poison("roll", 3, "user"), [("poison", "roll", 3, "user")]),
        (Poison("roll", 3, "user", 2.0, 1), [("poison", "roll", 3, "user"), ("mend",), ("resume", 1, RUN)]),
    ],
)
def test_a_fault_does_to_the_machine_that_it_names_what_it_says(fault: Fault, done: list[tuple[object, ...]]) -> None:
    """One that names none strikes who set it off."""
    machines = Machines()
    machines.inject(fault, actor=0)
    machines.schedule.run(10.0)
    assert machines.done == done


def test_a_fault_that_names_no_node_and_was_set_off_by_none_is_a_mistake_of_the_scenario() -> None:
    """Else it would strike nobody, and the test would show nothing."""
    with pytest.raises(AssertionError, match="names no node"):
        Machines().inject(Crash())


def test_a_machine_that_died_meanwhile_is_not_woken_in_its_next_life() -> None:
    """The pause belonged to a process that is gone."""
    machines = Machines()
    machines.inject(Pause(2.0, 1))
    machines.inject(Crash(1, restart_after_s=0.5))
    machines.schedule.run(1.0)
    machines.inject(Pause(60.0, 1))
    machines.schedule.run(5.0)
    assert ("wake", 1) not in machines.done
    assert machines.hosts[1].paused


@pytest.mark.parametrize(
    ("fault", "cuts"),
    [
        (Cut(0, 1, 5.0), {("n0", "n1")}),
        (Split((0,), 5.0, inbound=True), {("n1", "n0"), ("n2", "n0")}),
        (Split((0,), 5.0), {("n1", "n0"), ("n2", "n0"), ("n0", "n1"), ("n0", "n2")}),
    ],
)
def test_a_cut_is_there_for_as_long_as_it_says(fault: Fault, cuts: set[tuple[str, str]]) -> None:
    """One way, or all between a side and the rest."""
    machines = Machines()
    machines.inject(fault)
    assert machines.cuts() == cuts
    machines.schedule.run(6.0)
    assert machines.cuts() == set()


def test_a_power_cut_takes_every_node_and_of_disks_what_it_names() -> None:
    """All but those that stay off come back, each in its own time."""
    machines = Machines()
    for host in machines.hosts:
        host.disk.write("peers", b"1")
    machines.inject(PowerCut(4.0, stays_off=(0,), lost=(1,)))
    assert machines.done == [("kill", index) for index in range(3)]
    assert [host.comes_back for host in machines.hosts] == [False, True, True]
    assert ["peers" in host.disk.values for host in machines.hosts] == [True, False, True]
    machines.schedule.run(5.0)
    assert machines.hosts[0].process is None
    assert machines.hosts[1].process is not None


def test_what_is_wrong_with_a_machine_outlasts_its_restart_but_for_works_that_were_to_break() -> None:
    """A broken GPU is broken tomorrow; an engine that was to be killed died with the daemon."""
    machines = Machines()
    for fault in (Handicap("slow", 1), BreakEngine(3, "user", 1), Sever(0, 1), Crash(1, restart_after_s=1.0)):
        machines.inject(fault)
    machines.schedule.run(2.0)
    health = machines.hosts[1].health
    assert (health.speed < 1.0, health.break_works) == (True, 0)
    assert not machines.network.linked(NodeId("n0"), NodeId("n1"))


def test_a_disk_is_full_for_as_long_as_it_says() -> None:
    """What lies there stays."""
    machines = Machines()
    disk = machines.hosts[1].disk
    disk.write("peers", b"1")
    machines.inject(FullDisk(3.0, 1))
    assert disk.is_full
    machines.schedule.run(4.0)
    assert not disk.is_full
    assert "peers" in disk.values


def test_a_store_is_filled_for_as_long_as_it_says() -> None:
    """As long as nothing more is granted what comes has to wait."""
    machines = Machines()
    machines.inject(FillStore(3.0, 1))
    assert machines.hosts[1].store.most_bytes == 0
    machines.schedule.run(4.0)
    assert machines.hosts[1].store.most_bytes is None


def test_a_machine_that_lost_its_state_comes_back_in_what_it_takes_for_its_first_life() -> None:
    """Its key lay elsewhere, so to the others it is who it was."""
    machines = Machines()
    host = machines.hosts[1]
    host.disk.write("runs/a", b"1")
    machines.inject(LoseState(2.0, 1))
    assert (host.process, host.comes_back, host.disk.values) == (None, True, {})
    machines.schedule.run(3.0)
    assert host.process is not None


def test_a_clock_that_drifts_or_leaps_has_its_alarm_set_anew() -> None:
    """Else the node would be woken at the time of a clock that is no more."""
    machines = Machines()
    clock = machines.hosts[1].clock
    machines.schedule.run(10.0)
    machines.inject(Drift(1.02, 1))
    machines.inject(Leap(5.0, 1))
    assert machines.done == [("arm", 1), ("arm", 1)]
    assert clock.read(20.0) == pytest.approx(10.0 + 5.0 + 10.2)


def test_a_process_is_late_for_a_while_and_one_work_of_an_engine_hangs() -> None:
    """Both are over then."""
    machines = Machines()
    machines.inject(Lag(0.5, 2.0, 1))
    machines.inject(HangEngine(3.0, 2))
    assert machines.hosts[1].lag_s == 0.5
    assert [machines.hosts[2].health.hang(), machines.hosts[2].health.hang()] == [3.0, None]
    machines.schedule.run(3.0)
    assert machines.hosts[1].lag_s == 0.0


def test_what_a_network_does_for_a_while_is_over_then() -> None:
    """Held frames, full queues and closed lanes, each on its own way."""
    machines = Machines()
    for fault in (Stall(0, 1, 5.0), FillQueue(1, 2, 5.0), CloseLane("bulk", 5.0, 2)):
        machines.inject(fault)
    network = machines.network
    assert (set(network.held_until), network.full) == ({("n0", "n1")}, {("n1", "n2")})
    assert not network.opens(NodeId("n0"), NodeId("n2"), "bulk")
    machines.schedule.run(6.0)
    assert network.is_whole


def test_what_a_network_does_to_all_lasts_until_it_is_healed() -> None:
    """Frames that come twice, and narrow links."""
    machines = Machines()
    machines.inject(Repeat(0.5))
    machines.inject(Narrow(1e6))
    assert (machines.network.repeated, machines.network.bytes_per_s) == (0.5, 1e6)
    machines.network.heal()
    assert machines.network.is_whole


def test_a_run_is_stopped_at_one_node_and_resumed_a_while_later_at_another() -> None:
    """Any daemon takes a client's word."""
    machines = Machines()
    machines.inject(Stop(2, 3.0, 1))
    machines.schedule.run(2.0)
    assert machines.done == [("stop", 1, RUN)]
    machines.schedule.run(2.0)
    assert machines.done == [("stop", 1, RUN), ("resume", 2, RUN)]
