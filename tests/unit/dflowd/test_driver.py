"""What a pure node relies on: its actions in order, its deadline kept, and no input that ends the daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from dflow_protocols.events import (
    Action,
    Advanced,
    Dial,
    Discard,
    Drop,
    Event,
    Fetch,
    FindFiles,
    HangUp,
    Lagged,
    Leaving,
    NotPersisted,
    Persist,
    Received,
    Reply,
    Report,
    Send,
    SendThrough,
    Start,
    Stop,
    Tick,
    Trim,
    Unseal,
)
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.wire.frame import Frame
from dflowd.driver import EVENTS_A_TURN, NOT_ON_DISK, Driver

A, B = NodeId("aa" * 16), NodeId("bb" * 16)
RUN = RunId("cd" * 16)


class Script:
    """A machine that answers each event by a function, and whatever else by `acts`."""

    def __init__(self, answer: Callable[[Event], list[Action]], acts: Callable[[], list[Action]] = list) -> None:
        self.deadline = float("inf")
        self.may_rest = False
        self.events: list[Event] = []
        self.turns: list[int] = []  # how many events each took
        self._answer, self._acts = answer, acts
        self._due: list[Action] = []
        self._taken = 0

    @property
    def must_act(self) -> bool:
        return any(isinstance(action, Persist) for action in self._due)

    def take(self, now: float, event: Event) -> None:
        self._taken += 1
        self.events.append(event)
        self._due += self._answer(event)

    def act(self, now: float) -> list[Action]:
        self.turns.append(self._taken)
        due, self._due, self._taken = self._due, [], 0
        return [*due, *self._acts()]


class Diary:
    """A performer that only writes down what it did; the disk takes a moment."""

    def __init__(self, disk_is_full: bool = False) -> None:
        self.done: list[Any] = []
        self.causes: list[int | None] = []  # of the reports
        self.turns: list[tuple[int, list[Event], list[Action]]] = []
        self._disk_is_full = disk_is_full

    def send(self, to: NodeId, frames: list[Frame]) -> None:
        self.done.append(("send", to, [message for frame in frames for message in frame.messages]))

    def send_through(self, action: SendThrough) -> None:
        self.done.append(action)

    def unseal(self, action: Unseal) -> None:
        self.done.append(action)

    def hang_up(self, action: HangUp) -> None:
        self.done.append(action)

    async def persist(self, action: Persist) -> None:
        self.done.append(("persist begins", action.key))
        if self._disk_is_full:
            raise OSError(28, "No space left on device")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.done.append(("persisted", action.key))

    def _note(self, action: Start | Stop | Trim | Fetch | Drop | FindFiles | Discard | Dial | Reply) -> None:
        self.done.append(action)

    start = stop = trim = fetch = drop = find_files = discard = dial = reply = _note

    def advance(self, action: Advanced, cause: int | None = None) -> None:
        self.done.append(action)

    def report(self, report: Report, cause: int | None = None) -> None:
        self.done.append(report)
        self.causes.append(cause)

    def observe(self, event: Event) -> None:
        pass

    def note(self, cause: int, now: float, events: list[Event], actions: list[Action]) -> None:
        self.turns.append((cause, events, actions))


async def drive(
    script: Script, *events: Event, until: Callable[[Diary], bool], disk_is_full: bool = False
) -> list[Any]:
    """What the performer did until a condition on them held."""
    driver, diary = Driver(asyncio.get_running_loop()), Diary(disk_is_full)
    task = asyncio.create_task(driver.run(script, diary))
    for event in events:
        driver.post(event)
    end = driver.clock() + 30.0
    while not until(diary):
        assert driver.clock() < end, diary.done
        await asyncio.sleep(0)
    task.cancel()
    return diary.done


async def test_what_relies_on_the_disk_is_sent_after_it_was_written() -> None:
    """A submit is answered when the run is on disk, not before."""
    actions: list[Action] = [
        Send(A, Frame(None, ("before",))),
        Persist("runs/r", b"x"),
        Reply(1, True, {}),
        Send(A, Frame(None, ("after",))),
    ]
    script = Script(lambda event: actions if isinstance(event, Leaving) else [])
    done = await drive(script, Leaving(), until=lambda diary: len(diary.done) == 5)
    assert done == [
        ("send", A, ["before"]),
        ("persist begins", "runs/r"),
        ("persisted", "runs/r"),
        Reply(1, True, {}),
        ("send", A, ["after"]),
    ]


async def test_nobody_is_told_of_what_the_disk_did_not_take() -> None:
    """An acknowledgement of a run that a power cut then loses would lose the run; what runs here goes on."""
    actions: list[Action] = [Persist("runs/r", b"x"), Reply(1, True, {}), Stop(1), Send(A, Frame(None, ("kept",)))]
    script = Script(lambda event: actions if len(script.events) == 1 else [Stop(2)])
    done = await drive(script, Leaving(), Leaving(), until=lambda diary: Stop(2) in diary.done, disk_is_full=True)
    assert [entry for entry in done if not isinstance(entry, Report)] == [
        ("persist begins", "runs/r"),
        Reply(1, False, NOT_ON_DISK),
        Stop(1),
        Stop(2),
    ]
    (report,) = (entry for entry in done if isinstance(entry, Report))
    assert "No space left" in report.fields["error"]


async def test_all_that_is_due_to_a_peer_in_a_turn_leaves_at_once_and_in_order() -> None:
    """A frame costs more than what is in it."""
    script = Script(lambda event: [Send(A, Frame(None, (event.message,))), Send(B, Frame(None, ("b",)))])  # type: ignore[union-attr]
    events = [Received(B, number) for number in range(5)]
    done = await drive(script, *events, until=lambda diary: len(diary.done) == 2)
    assert done == [("send", A, [0, 1, 2, 3, 4]), ("send", B, ["b"] * 5)]


async def test_events_are_taken_one_by_one_while_the_disk_works() -> None:
    """A machine is never entered twice."""
    script = Script(lambda event: [Persist(f"k{len(script.events)}", b"x"), Stop(len(script.events))])
    done = await drive(script, Leaving(), Leaving(), until=lambda diary: len(diary.done) == 6)
    assert [entry for entry in done if not isinstance(entry, tuple)] == [Stop(1), Stop(2)]
    assert done.index(Stop(1)) < done.index(("persist begins", "k2"))


async def test_what_comes_while_a_machine_may_rest_is_taken_in_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a turn costs whatever happened is shared by all of it."""
    monkeypatch.setattr("dflowd.driver.REST_S", 0.5)
    script, diary, loop = Script(lambda event: [Stop(len(script.events))]), Diary(), asyncio.get_running_loop()
    script.may_rest, driver = True, Driver(loop)
    task, end = asyncio.create_task(driver.run(script, diary)), loop.time() + 30.0
    for number in range(3):
        driver.post(Received(A, number))
        for _ in range(20):  # turns of the loop
            await asyncio.sleep(0)
    while len(diary.done) < 3:
        assert loop.time() < end, diary.done
        await asyncio.sleep(0.01)
    task.cancel()
    assert script.turns == [1, 2]


async def test_who_is_behind_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn takes so many events at most: a rest between two would put off what waits further and further."""
    monkeypatch.setattr("dflowd.driver.REST_S", 600.0)
    script = Script(lambda event: [Stop(len(script.events))])
    script.may_rest = True
    events = [Received(A, number) for number in range(2 * EVENTS_A_TURN)]
    await drive(script, *events, until=lambda diary: len(diary.done) == len(events))
    assert script.turns == [EVENTS_A_TURN, EVENTS_A_TURN]


async def test_the_deadline_is_kept_without_any_event() -> None:
    """Silence is what the node waits for."""
    script = Script(lambda event: [])
    loop = asyncio.get_running_loop()
    script.deadline = loop.time() + 0.02

    def is_over(diary: Diary) -> bool:
        if script.events:
            script.deadline = float("inf")
        return bool(script.events)

    await drive(script, until=is_over)
    assert isinstance(script.events[0], Tick)


async def test_an_input_that_breaks_the_node_is_a_report_that_names_its_sender() -> None:
    """A peer must not be able to end a daemon, and a person must be able to see who tried."""

    def answer(event: Event) -> list[Action]:
        if isinstance(event, Received):
            raise KeyError("no such thing")
        return [Stop(7)]

    script = Script(answer)
    done = await drive(script, Received(A, "poison"), Leaving(), until=lambda diary: len(diary.done) == 2)
    assert done[0].name == "driver.handle_failed"
    assert done[0].fields["peer"] == A
    assert "no such thing" in done[0].fields["error"]
    assert done[1] == Stop(7)


def test_a_loop_that_was_blocked_is_told_to_the_machine() -> None:
    """A member that runs late takes the others for silent; membership must hear of it before it judges."""

    told: list[Event] = []

    async def blocked() -> None:
        heard = asyncio.Event()

        def take(event: Event) -> list[Action]:
            told.append(event)
            if isinstance(event, Leaving):
                heard.set()
            return []

        driver = Driver(asyncio.get_running_loop())
        drive = asyncio.create_task(driver.run(Script(take), Diary()))
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251  as a long computation on the loop does
        driver.post(Leaving())
        await asyncio.wait_for(heard.wait(), 60)
        drive.cancel()

    asyncio.run(blocked())
    late, leaving = told
    assert isinstance(late, Lagged)
    assert late.seconds > 0.2
    assert leaving == Leaving()


async def test_a_wish_that_the_disk_did_not_take_is_answered_as_the_machine_says() -> None:
    """It alone knows whether the wish is done all the same."""
    otherwise = {"what": "cancelled all the same", "hint": "", "exit": 1}
    actions: list[Action] = [Persist("runs/r", b"x"), Reply(1, True, {}, otherwise)]
    script = Script(lambda event: actions if isinstance(event, Leaving) else [])
    done = await drive(script, Leaving(), until=lambda diary: len(diary.done) == 3, disk_is_full=True)
    assert Reply(1, False, otherwise) in done


async def test_all_that_comes_of_a_turn_carries_its_number() -> None:
    """A report in the log is joined by it with what `dflow story` tells of the same turn."""
    driver, diary = Driver(asyncio.get_running_loop()), Diary()
    said: list[Action] = [Persist("runs/r", b"x"), Report("run.resumed", {}), Stop(1)]
    task = asyncio.create_task(driver.run(Script(lambda event: list(said)), diary))
    driver.post(Leaving())
    driver.post(Received(A, "frame"))
    end = driver.clock() + 30.0
    while len(diary.turns) < 2:
        assert driver.clock() < end, diary.turns
        await asyncio.sleep(0)
    task.cancel()
    assert diary.causes == [1, 2]
    assert diary.turns == [(1, [Leaving()], said), (2, [Received(A, "frame")], said)]


async def test_what_waits_is_taken_together_and_acted_on_once() -> None:
    """A loop that comes late to a hundred messages derives what is due once, not a hundred times."""
    script = Script(lambda event: [Stop(len(script.events))], lambda: [Stop(0)])
    done = await drive(script, *[Received(A, number) for number in range(5)], until=lambda diary: Stop(0) in diary.done)
    assert script.turns == [5]
    assert done == [Stop(1), Stop(2), Stop(3), Stop(4), Stop(5), Stop(0)]


async def test_a_write_that_fails_takes_nothing_from_what_was_taken_before_or_after() -> None:
    """Only what relies on it is held back: another client is answered as if the disk were well."""
    answers: list[list[Action]] = [
        [Reply(1, True, {})],
        [Persist("runs/r", b"x"), Reply(2, True, {})],
        [Reply(3, True, {})],
    ]
    script = Script(lambda event: answers[len(script.events) - 1])
    events = [Received(A, number) for number in range(3)]
    done = await drive(script, *events, until=lambda diary: len(diary.done) == 5, disk_is_full=True)
    assert [entry for entry in done if isinstance(entry, Reply)] == [
        Reply(1, True, {}),
        Reply(2, False, NOT_ON_DISK),
        Reply(3, True, {}),
    ]
    assert script.turns == [2, 1]


async def test_that_a_write_failed_is_heard_of_before_whatever_waits() -> None:
    """What says the same again would else be answered as if it lay on the disk: a submit that a client repeats, or a
    status that a member puts again while a slow disk is about to refuse it."""

    class Refusing(Diary):
        async def persist(self, action: Persist) -> None:
            driver.post(NotPersisted(action.key))
            await super().persist(action)

    driver = Driver(asyncio.get_running_loop())
    script = Script(lambda event: [Persist("runs/r", b"x")] if len(script.events) == 1 else [])
    again = [Received(A, "again"), Received(B, "again")]
    for event in (Received(A, "first"), *again):
        driver.post(event)
    task = asyncio.create_task(driver.run(script, Refusing(disk_is_full=True)))
    end = driver.clock() + 30.0
    while len(script.events) < 4:
        assert driver.clock() < end, script.events
        await asyncio.sleep(0)
    task.cancel()
    assert script.events == [Received(A, "first"), NotPersisted("runs/r"), *again]
