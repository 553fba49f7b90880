"""The disk of a pretended host: what it keeps, what a crash undoes, and what is told while it is full."""

from __future__ import annotations

from random import Random

from dflow_protocols.events import Event, Persist, Persisted, Reply, Report, Send
from dflow_protocols.names import NodeId
from dflow_protocols.simulator.model.disk import TRY_AGAIN_S, Disk, Writes, without_disk
from dflow_protocols.simulator.model.schedule import Life, Schedule


class Machine:
    """A disk, one life's writes to it, and what that life was told."""

    def __init__(self) -> None:
        self.schedule, self.disk, self.told = Schedule(), Disk(), list[Event]()
        self.writes = Writes(Life(self.schedule, Random(1), self.told.append), self.disk)


def test_an_incarnation_is_above_all_that_the_disk_knows_of() -> None:
    """The node writes one itself when it outbids another life; of a new disk the first life is the first."""
    disk = Disk()
    assert [disk.begin_life(), disk.begin_life()] == [1, 2]
    disk.write("incarnation", b"\x09")
    assert disk.begin_life() == 10
    disk.wipe()
    assert disk.begin_life() == 1


def test_only_a_write_that_was_not_confirmed_can_be_undone() -> None:
    """The file is the old one then, or is not there."""
    disk = Disk()
    disk.write("peers", b"1")
    disk.confirm()
    disk.undo_unconfirmed()
    disk.write("peers", b"2")
    disk.undo_unconfirmed()
    assert disk.values == {"peers": b"1"}
    disk.write("runs/a", b"1")
    disk.undo_unconfirmed()
    assert disk.values == {"peers": b"1"}


def test_what_a_full_disk_does_not_take_is_tried_again_in_its_newest_value() -> None:
    """A daemon tries every few seconds, until it says that it is kept."""
    machine = Machine()
    machine.disk.fill()
    assert not machine.writes.write(Persist("runs/a", b"1"))
    assert not machine.writes.write(Persist("runs/a", b"2"))
    machine.schedule.run(TRY_AGAIN_S)
    machine.disk.make_room()
    machine.schedule.run(TRY_AGAIN_S + 0.1)
    assert machine.disk.values == {"runs/a": b"2"}
    assert machine.told == [Persisted("runs/a")]


def test_a_newer_value_that_is_taken_is_told_as_kept_and_nothing_older_is_written_after_it() -> None:
    """The last word counts."""
    machine = Machine()
    machine.disk.fill()
    machine.writes.write(Persist("runs/a", b"1"))
    machine.disk.make_room()
    assert machine.writes.write(Persist("runs/a", b"2"))
    machine.schedule.run(2 * TRY_AGAIN_S)
    assert machine.disk.values == {"runs/a": b"2"}
    assert machine.told == [Persisted("runs/a")]


def test_what_is_to_be_written_at_once_or_never_is_not_tried_again() -> None:
    """Its client was told no."""
    machine = Machine()
    machine.disk.fill()
    machine.writes.write(Persist("runs/a", b"1", or_never=True))
    machine.disk.make_room()
    machine.schedule.run(2 * TRY_AGAIN_S)
    assert machine.disk.values == {}
    assert machine.told == []


def test_after_a_write_that_failed_nobody_is_told_in_that_turn() -> None:
    """A client is told that it is not kept; what concerns nobody else is done."""
    report = Report("run.heard", {})
    assert without_disk(Send(NodeId("n1"), None)) is None
    assert without_disk(Reply(1, True, {}, {"what": "it is not kept"})) == Reply(1, False, {"what": "it is not kept"})
    assert without_disk(report) is report
