"""Environments of the package verifiers (PyPI, its releases 0.1), as environments of ours: name one in a spec by

    environment: {class: "dflowd.rewards.verifiers:Conversation", turns: 8, args: {name: wordle, args: {...}}}

and write the rows that it brings with it, which the spec's data reads (`messages: messages, answer: answer`):

    python -m dflowd.rewards.verifiers wordle rows.jsonl '{"num_train_examples": 500}'

The environment's own loop runs, and asks for each turn of the model as it would ask a server: so whatever it is made of
(SingleTurnEnv, MultiTurnEnv, ToolEnv, their hooks and stops) is at work. Its rubric scores the conversation when it is
over; `turns` has to leave room for that. A tool is called as Hermes and Qwen models do, by a JSON object between
<tool_call> and </tool_call>.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)

Message = dict[str, Any]


class Conversation:
    """One of the environment `name`, which is loaded with `args` once a process. Raises ImportError where it, or the
    package, is not installed."""

    def __init__(self, name: str, args: Mapping[str, Any] | None = None) -> None:
        self._name = name
        self._environment = _loaded(name, json.dumps(dict(args or {}), sort_keys=True))
        self._asked: asyncio.Queue[Sequence[Any] | None] = asyncio.Queue()  # what the model is to answer; None: nothing
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._rollout: asyncio.Task[Any] | None = None
        self._length = 0  # messages of the conversation that the environment has put to the model

    async def reset(self, entry: Mapping[str, Any]) -> None:
        """The conversation begins as the data words the row."""
        opening = entry.get("messages") or [{"role": "user", "content": entry["question"]}]
        row = {"prompt": opening, "example_id": 0, "answer": entry["answer"], "info": entry.get("info") or {}}
        played = self._environment.rollout(row, _client(self._asked, self._said), "dflowd", {})
        self._rollout = asyncio.get_running_loop().create_task(played)
        self._rollout.add_done_callback(lambda _: self._asked.put_nowait(None))
        if await self._put() is None:
            raise RuntimeError(f"environment {self._name} asks the model nothing") from self._rollout.exception()

    async def step(self, messages: Sequence[Message]) -> tuple[list[Message], float, bool]:
        """What the environment puts to the model next; when it is done, the score of its rubric."""
        await self._said.put(str(messages[-1]["content"]))
        asked = await self._put()
        if asked is None:
            assert self._rollout is not None
            state = self._rollout.result()
            if state.get("error") is not None:
                raise state["error"]
            await self._environment.rubric.score_rollout(state)
            return [], float(state["reward"]), True
        return asked, 0.0, False

    async def close(self) -> None:
        """Of a conversation that is given up nothing stays."""
        if self._rollout is not None:
            self._rollout.cancel()

    async def _put(self) -> list[Message] | None:
        """The messages behind the model's last turn; None where there is none to come."""
        asked = await self._asked.get()
        if asked is None:
            return None
        behind, self._length = asked[self._length :], len(asked) + 1  # with what the model will say
        return [_plain(each) for each in behind]


def _client(asked: asyncio.Queue[Any], said: asyncio.Queue[str]) -> Any:
    """What an environment takes for a model's server."""
    from verifiers.clients import Client
    from verifiers.types import Response, ResponseMessage

    class Asking(Client):  # type: ignore[misc, type-arg, unused-ignore]
        async def get_response(self, prompt: Any, model: str, *rest: Any, **more: Any) -> Any:
            await asked.put(list(prompt))
            text = await said.get()
            calls = list(map(_call, enumerate(CALL.findall(text)))) or None
            message = ResponseMessage(content=text, tool_calls=calls, finish_reason="stop", is_truncated=False)
            return Response(id="0", created=int(time.time()), model=model, message=message)

    Asking.__abstractmethods__ = frozenset()  # the rest is of servers
    return Asking(None)


def _call(numbered: tuple[int, str]) -> Any:
    """A call in the model's text. One that is no JSON has no name, so the environment says that there is no such."""
    from verifiers.types import ToolCall

    number, text = numbered
    try:
        told = json.loads(text)
    except ValueError:
        told = {}
    return ToolCall(id=str(number), name=str(told.get("name", "")), arguments=json.dumps(told.get("arguments", {})))


def _plain(message: Any) -> Message:
    told = message if isinstance(message, dict) else message.model_dump()
    content = told["content"]
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    return {"role": told["role"], "content": content or ""}


@cache
def _loaded(name: str, args: str) -> Any:
    import verifiers

    return verifiers.load_environment(name, **json.loads(args))


def write_rows(name: str, file: Path, args: Mapping[str, Any]) -> int:
    """The environment's own rows as JSON lines; returns how many."""
    rows = _loaded(name, json.dumps(dict(args), sort_keys=True)).get_dataset()
    with file.open("w") as lines:
        for row in rows:
            told = {"messages": [_plain(each) for each in row["prompt"]], "answer": str(row.get("answer") or "")}
            lines.write(json.dumps(told | {"info": row.get("info") or {}}) + "\n")
    return len(rows)


if __name__ == "__main__":
    count = write_rows(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
    print(f"{sys.argv[2]}: {count} rows")
