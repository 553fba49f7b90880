"""A user's function may do whatever a process can: it costs the call, names itself, and leaves others alone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dflowd.jobs.failures import GivenUp, UserError
from dflowd.jobs.limits import Limits
from dflowd.workers.outcome import Arguments, Due, Outcome
from dflowd.workers.pool import Pool, Terms
from tests.support.strike import is_alive
from tests.support.until import until

CODE = """
import asyncio, contextlib, os, signal, stat, subprocess, sys, tempfile, threading, time
from dflowd.workers.counts import count

HOARD = []

class Mute(Exception):
    def __str__(self): raise SystemExit

class Shaky:
    def __float__(self): sys.exit(1)

def score(completion, place="."):
    match completion:
        case "loop":
            while True: pass
        case "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(1000)
        case "held":
            import re
            re.match(r"(a+)+$", "a" * 50 + "b")
        case "exit": os._exit(3)
        case "crash": os.kill(os.getpid(), signal.SIGSEGV)
        case "leak":
            kept = []
            while True: kept.append(bytearray(64 << 20))
        case "children":
            child = subprocess.Popen(["sleep", "1000"])
            open(os.path.join(place, "child"), "w").write(str(child.pid))
            time.sleep(1000)
        case "garbage":
            for fd in range(3, 1000):
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, b"x" * 64)
        case "raise": raise ValueError("odd")
        case "half": raise ValueError("half of a character: \\ud800")
        case "mute": raise Mute
        case "shaky": return Shaky()
        case "gone":
            with tempfile.TemporaryDirectory() as folder: os.chdir(folder)
        case "hoard": HOARD.append(bytearray(100 << 20))
        case "quit": sys.exit(0)
        case "text": return "good"
        case "debugger": breakpoint()
        case "files": [open(os.devnull) for _ in range(5000)].count(0)
        case "fork": os.fork()
        case "talk":
            for _ in range(20_000): print("x" * 100)
        case "thread": threading.Thread(target=time.sleep, args=(1000,)).start()
        case "none": return None
    return 1.0

async def ask(completion):
    await asyncio.sleep(0.01)
    if completion == "late": await asyncio.sleep(1000)
    if completion == "exit": os._exit(3)
    if completion == "block": time.sleep(1000)
    if completion == "quit": sys.exit(0)
    if completion == "own": raise TimeoutError("the data base")
    return len(completion)

def behind(completion): return ask(completion)

def paid(completion):
    count("judge_requests", len(completion))
    if completion == "raise": raise ValueError("odd")
    if completion == "odd": count("judge_requests", float("nan"))
    return asking(completion) if completion == "behind" else 1.0

async def asking(completion):
    count("judge_requests")
    if completion == "late": await asyncio.sleep(1000)
    return await asyncio.to_thread(lambda: count("judge_requests") or 1.0)

def process(completion): return os.getpid()
"""
LIMIT_S = 3.0


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    (tmp_path / "judge.py").write_text(CODE)
    made = Pool(tmp_path, Limits(workers=2, memory_bytes=256 << 20))
    yield made
    made.close()


def outcomes(pool: Pool, said: Sequence[str], name: str = "score", **terms: object) -> list[Outcome]:
    calls = [Arguments((), {"completion": each}) for each in said]
    how = Terms(**{"limit_s": LIMIT_S, "ends_at_error": False, **terms})  # type: ignore[arg-type]
    return pool.map(f"judge.py:{name}", calls, Due(), how, lambda: None)


COSTLY = {
    "loop": "took longer than 3 s",
    "deaf": "took longer than 3 s",
    "held": "took longer than 3 s",
    "exit": "ended with exit status 3",
    "crash": "was killed by SIGSEGV",
    "leak": r"MemoryError:.*judge\.py:\d+\) \(engine\.reward_memory\)",
}
"""A limit decided: another host might find otherwise."""
WRONG = {
    "raise": r"ValueError: odd \(judge\.py:\d+\)",
    "half": r"ValueError: half of a character: \\ud800 \(judge\.py:\d+\)",
    "mute": r"Mute: its text cannot be shown",
    "shaky": r"SystemExit: 1 \(judge\.py:\d+\)",
    "quit": r"SystemExit: 0 \(judge\.py:\d+\)",
    "text": "gave 'good' where a finite number is due",
    "debugger": "BdbQuit",
    "files": r"OSError: .*Too many open files",
}
"""A function of the inputs."""


@pytest.mark.parametrize(("said", "error"), [*COSTLY.items(), *WRONG.items()])
def test_a_call_that_goes_wrong_costs_itself_and_says_why(pool: Pool, said: str, error: str) -> None:
    """The engine, the step and the other answers are none of its business."""
    bad, good = outcomes(pool, [said, "well"], limit_s=LIMIT_S if "longer" in error else 60.0)
    assert bad.value is None
    assert re.search(error, bad.error), bad.error
    assert bad.is_of_inputs is (said in WRONG)
    assert good == Outcome(1.0)


@pytest.mark.parametrize("said", ["fork", "talk", "thread"])
def test_a_rude_call_that_comes_back_counts(pool: Pool, said: str) -> None:
    """It gave its number; what it left behind is in the way of nobody."""
    assert outcomes(pool, [said, "well"]) == [Outcome(1.0), Outcome(1.0)]


def counted(pool: Pool, said: Sequence[str], name: str) -> list[float]:
    return [outcome.counts.get("judge_requests", 0.0) for outcome in outcomes(pool, said, name, at_once=4)]


def test_what_a_call_counts_is_its_own_however_it_ends(pool: Pool) -> None:
    """Calls of one process that wait beside each other, and threads that they start, count apart."""
    assert counted(pool, ["a", "raise", "behind", "bb"], "paid") == [1, 5, 8, 2]
    assert counted(pool, ["a", "late", "b"], "asking") == [2, 1, 2]


def test_a_count_that_is_no_amount_costs_the_call(pool: Pool) -> None:
    """One would spoil the sums of a whole step."""
    (bad,) = outcomes(pool, ["odd"], "paid")
    assert "wrote to its engine what is no answer: counted" in bad.error


def test_none_is_no_score_and_no_error(pool: Pool) -> None:
    """A judge that cannot tell must be able to say so."""
    assert outcomes(pool, ["none"]) == [Outcome(None)]


def test_what_writes_into_the_line_to_its_engine_is_ended(pool: Pool) -> None:
    """Bytes that are no answer are not waited for, and never taken for one."""
    bad, good = outcomes(pool, ["garbage", "well"])
    assert bad.error
    assert not bad.is_of_inputs
    assert good == Outcome(1.0)


def test_processes_that_a_call_started_end_with_it(pool: Pool, tmp_path: Path) -> None:
    """A judge's own server would hold its port, and the memory, for ever."""
    calls = [Arguments((), {"completion": "children", "place": str(tmp_path)})]
    (bad,) = pool.map("judge.py:score", calls, Due(), Terms(LIMIT_S, ends_at_error=False), lambda: None)
    assert "took longer" in bad.error
    child = int((tmp_path / "child").read_text())
    until(lambda: not is_alive(child), 10)


def test_after_an_error_that_ends_it_nothing_more_is_called(pool: Pool) -> None:
    """A function that is wrong is wrong a thousand times; the first in order tells, whoever was quicker."""
    found = outcomes(pool, ["well", "raise", *["loop"] * 50], ends_at_error=True)
    assert [bool(each.error) for each in found] == [False, True]


def test_coroutines_wait_beside_each_other_and_cost_only_themselves(pool: Pool) -> None:
    """A judge behind a network answers eight questions in the time of one."""
    said = [*["ab"] * 20, "late", "exit", "quit", "own", "block", "abc"]
    found = outcomes(pool, said, "ask", at_once=8)
    assert [each.value for each in found] == [*[2.0] * 20, None, None, None, None, None, 3.0]
    late, exits, leaves, own, blocks, _ = found[20:]
    assert all("took longer" in each.error and not each.is_of_inputs for each in (late, blocks))
    assert "exit status 3" in exits.error
    assert "SystemExit: 0" in leaves.error
    assert "TimeoutError: the data base" in own.error
    assert leaves.is_of_inputs
    assert own.is_of_inputs


def test_what_gives_a_coroutine_is_waited_for(pool: Pool) -> None:
    """A decorator makes a plain function of an `async def`, and its user does not know."""
    assert outcomes(pool, ["ab"], "behind") == [Outcome(2.0)]


def test_a_folder_that_was_left_and_removed_harms_no_later_call(pool: Pool) -> None:
    """One process makes many calls: what fails must not depend on what else it had."""
    assert outcomes(pool, ["gone", "well"]) == [Outcome(1.0), Outcome(1.0)]


def test_memory_that_calls_keep_costs_a_process_and_no_answer(pool: Pool) -> None:
    """A cache without a bound fills any limit in a long run; a fresh process has room for the next call."""
    assert outcomes(pool, ["hoard"] * 6, limit_s=60.0) == [Outcome(1.0)] * 6


def test_a_worker_that_died_between_calls_is_nobodys_error(pool: Pool) -> None:
    """The kernel may end it for memory that others took."""
    (first,) = outcomes(pool, ["a"], "process")
    os.kill(int(first.value), signal.SIGKILL)
    until(lambda: not is_alive(int(first.value)), 10)
    (second,) = outcomes(pool, ["a"], "process")
    assert second.value not in (None, first.value)


def test_who_gives_up_leaves_no_process_behind(pool: Pool, tmp_path: Path) -> None:
    """A run that is cancelled must not go on burning a core."""
    told = tmp_path / "child"

    def tick() -> None:
        if told.exists() and told.read_text():
            raise GivenUp

    calls = [Arguments((), {"completion": "children", "place": str(tmp_path)})]
    with pytest.raises(GivenUp):
        pool.map("judge.py:score", calls, Due(), Terms(60.0), tick)
    until(lambda: not is_alive(int(told.read_text())), 10)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("import os\nos._exit(4)\n", r"the import of `bad\.py:score` ended with exit status 4"),
        ("while True: pass\n", r"the import of `bad\.py:score` took longer than 1 s; raise engine\.stall_s"),
    ],
)
def test_a_module_that_cannot_be_imported_is_the_users_error(tmp_path: Path, code: str, error: str) -> None:
    """Whatever `on_error` says: there is no answer that it could be about."""
    (tmp_path / "bad.py").write_text(code)
    pool = Pool(tmp_path, Limits(silence_s=1.0 if "longer" in error else 60.0))
    with pytest.raises(UserError, match=error):
        pool.signature("bad.py:score", lambda: None)
    pool.close()
