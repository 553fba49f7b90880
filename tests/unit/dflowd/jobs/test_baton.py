"""Several calls in one process: who goes on, whose doing it is, and what it costs whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dflowd.jobs import main_thread
from dflowd.jobs.baton import Baton
from dflowd.jobs.main_thread import in_main_thread
from dflowd.slots.doing import Doing
from tests.support.until import until

DEADLINE_S = 60.0
PASS = Doing("roll", "it sampled")


def started(baton: Baton, call: int, work: Callable[[], None]) -> threading.Thread:
    """A call's thread, which has the baton or waits for it."""

    def live() -> None:
        with baton.held(call):
            work()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    return thread


def queued(baton: Baton) -> int:
    return len(baton._lock._waiting)


def test_whoever_asks_first_has_the_baton_first() -> None:
    """A call that comes while others sample goes on after one pass of each, however many passes they need."""
    baton, seen = Baton(), list[int]()

    def passes(call: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(3):
                seen.append(call)
                baton.pass_on()

        return work

    with baton.held(9):
        threads = []
        for call in (1, 2, 3):
            threads.append(started(baton, call, passes(call)))
            until(lambda: queued(baton) == len(threads), DEADLINE_S)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert seen == [1, 2, 3] * 3


def test_one_call_at_a_time_goes_on() -> None:
    """What an engine holds has no locks."""
    baton, inside, most = Baton(), list[int](), list[int]()

    def work() -> None:
        for _ in range(50):
            inside.append(baton.holder)
            most.append(len(inside))
            time.sleep(0)
            inside.pop()
            baton.pass_on()

    threads = [started(baton, call, work) for call in (1, 2, 3, 4)]
    for thread in threads:
        thread.join(DEADLINE_S)
    assert set(most) == {1}
    assert len(most) == 200


def test_what_was_done_last_says_whose_doing_it_was() -> None:
    """An engine that dies takes all its calls with it; who reads its last words finds the one that it died of."""
    baton = Baton()
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}

    def look(when: str) -> None:
        doing = baton.board.read()
        seen[when] = doing.what, doing.calls

    def other() -> None:
        baton.board.write(Doing("score", "it scored"))
        look("second")
        with baton.aboard():
            baton.pass_on()
        look("second again")

    with baton.held(1), baton.aboard():
        baton.board.write(Doing("roll", "it read"))
        thread = started(baton, 2, other)
        until(lambda: queued(baton) == 1, DEADLINE_S)
        baton.pass_on()
        look("first again")
        baton.together(PASS, lambda: look("pass"))
        look("after the pass")
    thread.join(DEADLINE_S)
    look("nobody")
    assert seen == {
        "second": ("it scored", (2,)),
        "first again": ("it read", (1,)),
        "pass": ("it sampled", (1, 2)),
        "after the pass": ("it read", (1,)),
        "second again": ("it scored", (2,)),
        "nobody": ("it scored", (2,)),
    }


def test_a_pass_costs_those_who_share_it_and_nobody_else() -> None:
    """What a task takes of its slot is what a thief compares; the time that it waited for others is theirs."""
    baton, costs = Baton(), dict[int, float]()

    def other() -> None:
        with baton.aboard():
            baton.pass_on()
        costs[2] = baton.seconds()

    def sampled() -> None:
        began = time.perf_counter()
        until(lambda: time.perf_counter() - began > 0.2, DEADLINE_S)

    with baton.held(1):
        thread = started(baton, 2, other)
        until(lambda: queued(baton) == 1, DEADLINE_S)
        before = baton.seconds()
        with baton.aboard():
            baton.pass_on()
            baton.together(PASS, sampled)
        costs[1] = baton.seconds() - before
    thread.join(DEADLINE_S)
    assert all(0.1 <= cost < 0.2 for cost in costs.values()), costs


def test_who_drifts_leaves_the_baton_to_others_and_pays_for_the_rest() -> None:
    """A pass that needs no hands keeps nobody waiting, and is not told to cost what somebody else's work took."""
    baton, costs = Baton(), dict[int, float]()

    def works() -> None:
        began = time.perf_counter()
        until(lambda: time.perf_counter() - began > 0.2, DEADLINE_S)
        costs[2] = baton.seconds()

    with baton.held(1):
        before = baton.seconds()
        thread = started(baton, 2, works)
        until(lambda: queued(baton) == 1, DEADLINE_S)
        with baton.aboard():
            baton.drift(PASS, 0.1)
        costs[1] = baton.seconds() - before
    thread.join(DEADLINE_S)
    assert costs[2] >= 0.2
    assert costs[1] < 0.1, "it slept while the other worked"


def test_a_process_that_ends_while_its_calls_drift_shows_all_of_them() -> None:
    """Nobody can tell whose doing it was, so none is blamed alone."""
    baton = Baton()
    with baton.held(1), baton.aboard():
        baton._aboard.append(2)
        baton._calls[2] = baton._calls[1]
        shown: list[tuple[int, ...]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "sleep", lambda _: shown.append(baton.board.read().calls))
            baton.drift(PASS, 0.1)
        baton._aboard.remove(2)
    assert shown == [(1, 2)]


class EndedError(Exception):
    """The process would have ended."""


def test_a_pass_that_fails_is_its_calls_own_only_where_it_was_alone() -> None:
    """Of several, an innocent one would be blamed, and in the end be left out."""

    def end(error: BaseException) -> None:
        raise EndedError from error

    def fail() -> None:
        raise ValueError

    baton = Baton(end=end)
    with baton.held(1), baton.aboard():
        with pytest.raises(ValueError, match=r"^$"):
            baton.together(PASS, fail)
        baton._aboard.append(2)
        baton._calls[2] = baton._calls[1]
        with pytest.raises(EndedError):
            baton.together(PASS, fail)
        baton._aboard.remove(2)


def test_what_the_main_thread_must_do_is_done_there_and_answered() -> None:
    """A library that keeps things by thread is called by one alone; what it raises there is the asker's."""
    found: list[object] = []

    def exits() -> None:
        raise SystemExit(3)

    def ask() -> None:
        found.append(in_main_thread(threading.current_thread))
        try:
            in_main_thread(exits)
        except SystemExit as error:
            found.append(error.code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    for _ in range(2):
        main_thread.ERRANDS.get(timeout=DEADLINE_S)()
    thread.join(DEADLINE_S)
    assert found == [threading.main_thread(), 3]
