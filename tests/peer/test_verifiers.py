"""Environments of the package verifiers, played turn by turn by workers as ours are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflowd.jobs.limits import Limits
from dflowd.workers.outcome import Arguments, Due
from dflowd.workers.pool import Pool, Terms

pytest.importorskip("verifiers")
pytestmark = pytest.mark.peer

LOADS_S = 600.0  # a worker's first call imports verifiers, which takes minutes beside others' work
CLASS = "dflowd.rewards.verifiers:Conversation"
CODE = '''
import verifiers as vf
from datasets import Dataset

class Echo(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **rest):
        said = messages[-1].content
        if said == state["answer"]:
            state["final_env_response"] = [vf.UserMessage(content="right")]
            return state["final_env_response"]
        return [vf.UserMessage(content=f"not {said}")]

def right(completion, answer, **rest):
    return float(any(each.content == answer for each in completion if each.role == "assistant"))

def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)

def load_environment(kind="multi", max_turns=4):
    known = {"rubric": vf.Rubric(funcs=[right]), "dataset": Dataset.from_list([{"question": "say k", "answer": "k"}])}
    if kind == "tool":
        return vf.ToolEnv(tools=[add], max_turns=max_turns, **known)
    return vf.SingleTurnEnv(**known) if kind == "single" else Echo(max_turns=max_turns, **known)
'''
ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    (tmp_path / "echoes.py").write_text(CODE)
    made = Pool(tmp_path, Limits())
    yield made
    made.close()


def played(pool: Pool, said: list[str], **args: Any) -> list[tuple[list[str], float, bool]]:
    """What is answered to each turn: texts, reward, whether it is over."""
    messages, found = [{"role": "user", "content": "say k"}], []
    named = {"key": "a", "args": {"name": "echoes", "args": args}, "entry": {"question": "say k", "answer": "k"}}
    for turn in range(len(said) + 1):
        messages += [{"role": "assistant", "content": said[turn - 1]}] if turn else []
        call = Arguments((), {**named, "messages": messages, "begins": 1, "is_last": False}, "a", max(0, turn - 1))
        (outcome,) = pool.map(CLASS, [call], Due(is_turn=True), Terms(LOADS_S), lambda: None)
        assert not outcome.error
        messages += outcome.value["messages"] or []
        if turn:
            texts = [each["content"] for each in outcome.value["messages"]]
            found.append((texts, outcome.value["reward"], outcome.value["done"]))
    return found


@pytest.mark.parametrize(
    ("args", "said", "expected"),
    [
        ({}, ["a", "k"], [(["not a"], 0.0, False), ([], 1.0, True)]),
        ({"max_turns": 2}, ["a", "b"], [(["not a"], 0.0, False), ([], 0.0, True)]),
        ({"kind": "single"}, ["k"], [([], 1.0, True)]),
        ({"kind": "tool"}, [ADD, "k"], [(["3"], 0.0, False), ([], 1.0, True)]),
    ],
)
def test_each_kind_is_played_by_its_own_rules(pool: Pool, args: Any, said: list[str], expected: Any) -> None:
    """Its loop, its stops and its rubric are at work; only the model's turns are ours."""
    assert played(pool, said, **args) == expected
