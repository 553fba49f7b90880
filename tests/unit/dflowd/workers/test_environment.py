"""An environment is somebody's code: each conversation has its own, and what goes wrong in it costs that one alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflowd.jobs.limits import Limits
from dflowd.workers.outcome import Arguments, Due, Outcome
from dflowd.workers.pool import Pool, Terms

CODE = """
import asyncio, os, time

class Talk:
    def __init__(self, mark="."):
        self.mark, self.heard = mark, []

    def reset(self, entry):
        self.heard.append(entry["name"])

    def step(self, messages):
        said = messages[-1]["content"]
        self.heard.append(said)
        match said:
            case "hang": time.sleep(1000)
            case "die": os._exit(3)
            case "raise": raise ValueError("odd")
            case "number": return 5
            case "mute": return None, 0.0, False
            case "nan": return "a", float("nan"), False
            case "role": return [{"content": "a"}], 0.0, False
            case "bye": return "", 1.0, True
        return f"{os.getpid()} " + self.mark.join(self.heard), len(self.heard), False

    def close(self):
        open("closed", "a").write(self.heard[0])

class Meets(Talk):
    here = 0
    def reset(self, entry): return [{"role": "user", "content": "begin"}]
    async def step(self, messages):
        Meets.here += 1
        while Meets.here < 8: await asyncio.sleep(0.01)
        return "on", 0.0, messages[-1]["content"] == "bye"
    async def close(self): pass

class Waits(Talk):
    def step(self, messages): return self.later()
    async def later(self): await asyncio.sleep(0.01)
"""
LIMIT_S = 2.0


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    (tmp_path / "talk.py").write_text(CODE.replace('"closed"', repr(str(tmp_path / "closed"))))
    made = Pool(tmp_path, Limits(workers=1, memory_bytes=512 << 20))
    yield made
    made.close()


def told(
    pool: Pool, turns: dict[str, list[str]], name: str = "Talk", args: dict[str, Any] | None = None, **more: Any
) -> list[Outcome]:
    """What the environments answer to the last turn of each conversation; an empty one begins."""
    calls = []
    for key, said in turns.items():
        opening = [{"role": "user", "content": "q"}]
        spoken = [
            {"role": role, "content": text} for each in said for role, text in (("assistant", each), ("user", "-"))
        ]
        named = {"key": key, "args": args or {}, "entry": {"name": key}, "messages": opening + spoken[:-1], "begins": 1}
        calls.append(Arguments((), {**named, "is_last": False, **more}, key, max(0, len(said) - 1)))
    return pool.map(f"talk.py:{name}", calls, Due(is_turn=True), Terms(LIMIT_S, 8, ends_at_error=False), lambda: None)


def heard(outcome: Outcome) -> tuple[str, str]:
    """The process that answered, and what its environment has heard so far."""
    process, _, words = outcome.value["messages"][0]["content"].partition(" ")
    return process, words


def test_each_conversation_has_an_environment_of_its_own_that_remembers(pool: Pool) -> None:
    """Two of them are played at once, by one class."""
    assert [each.value["messages"] for each in told(pool, {"a": [], "b": []})] == [None, None]
    first = told(pool, {"a": ["one"], "b": ["two"]})
    second = told(pool, {"a": ["one", "three"], "b": ["two", "four"]})
    assert [heard(each)[1] for each in (*first, *second)] == ["a.one", "b.two", "a.one.three", "b.two.four"]
    assert [each.value["reward"] for each in second] == [3.0, 3.0]


@pytest.mark.parametrize(("said", "error"), [("hang", r"took longer than 2 s"), ("die", "ended with exit status 3")])
def test_one_that_hangs_or_dies_costs_its_conversation_and_no_other(pool: Pool, said: str, error: str) -> None:
    """The others were remembered by the process that is gone: a fresh one is told again what was said."""
    told(pool, {"a": [], "b": []})
    before = told(pool, {"a": ["one"], "b": ["two"]})
    bad, good = told(pool, {"a": ["one", said], "b": ["two", "three"]})
    assert re.search(error, bad.error)
    assert not bad.is_of_inputs
    assert heard(good)[1] == "b.two.three"
    assert heard(good)[0] != heard(before[1])[0]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("raise", r"ValueError: odd \(talk\.py:\d+\)"),
        ("number", r"talk\.py:Talk\.step gave 5 where \(messages, reward, done\) are due"),
        ("mute", "gave no message and is not done"),
        ("nan", "gave nan where a finite number is due"),
        ("role", r"`messages\[0\]` has no `role`"),
    ],
)
def test_an_answer_that_is_none_says_what_is_due(pool: Pool, said: str, error: str) -> None:
    """Another host would find the same, so the error is one of the user's code."""
    told(pool, {"a": []})
    (outcome,) = told(pool, {"a": [said]})
    assert re.search(error, outcome.error), outcome.error
    assert outcome.is_of_inputs


def test_what_an_environment_holds_is_given_back_when_its_conversation_is_over(pool: Pool, tmp_path: Path) -> None:
    """By its own word, or as the model says no more."""
    told(pool, {"a": [], "b": []})
    assert told(pool, {"a": ["bye"]})[0].value == {"messages": [], "reward": 1.0, "done": True}
    told(pool, {"b": ["one"]}, is_last=True)
    assert (tmp_path / "closed").read_text() == "ab"


@pytest.mark.parametrize("said", ["raise", "number", "nan"])
def test_what_an_environment_holds_is_given_back_when_its_conversation_fails(
    pool: Pool, tmp_path: Path, said: str
) -> None:
    """A browser or a sandbox that is left open by each failure fills the host."""
    told(pool, {"a": []})
    assert told(pool, {"a": [said]})[0].error
    assert (tmp_path / "closed").read_text() == "a"


def test_environments_that_wait_do_so_beside_each_other(pool: Pool) -> None:
    """Eight of one worker, each of which waits for the seven others: one after the other they would wait for ever."""
    keys = "abcdefgh"
    began = told(pool, {key: [] for key in keys}, "Meets")
    assert [each.value["messages"][0]["content"] for each in began] == ["begin"] * 8
    ended = told(pool, {key: ["bye"] for key in keys}, "Meets")
    assert [each.value["done"] for each in ended] == [True] * 8


def test_a_plain_method_that_would_wait_is_told_how_to(pool: Pool) -> None:
    """Nobody would wait for it."""
    told(pool, {"a": []}, "Waits")
    assert "write `async def`" in told(pool, {"a": ["one"]}, "Waits")[0].error


def test_arguments_reach_the_class(pool: Pool) -> None:
    """`args` of the spec are its keywords."""
    told(pool, {"a": []}, args={"mark": "/"})
    assert heard(told(pool, {"a": ["one"]}, args={"mark": "/"})[0])[1] == "a/one"
