"""A judge over HTTP: a real server on loopback, asked as a worker asks."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dflowd.rewards import judge
from dflowd.workers import counts

SECRET = "s3cret"


class Api(BaseHTTPRequestHandler):
    """Answers with what is on its list, then with the last of it."""

    answers: ClassVar[list[tuple[int, str]]] = []
    usage: ClassVar[Any] = None
    asked: ClassVar[list[tuple[str, str, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers.get("Authorization", ""), body))
        status, said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        whole = {"choices": [{"message": {"content": said}}], "usage": self.usage}
        text = json.dumps(whole) if status == 200 else said
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(judge, "FIRST_WAIT_S", 0.01)
    Api.answers, Api.asked, Api.usage = [], [], None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def asked(url: str, **more: Any) -> float | None:
    return asyncio.run(judge.score("I say 72", "72", "What is 70 + 2?", url=url, model="big", **more))


def test_a_judge_is_asked_with_all_three_and_its_last_number_counts(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the key comes from the host, by environment or file."""
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    (tmp_path / "key").write_text(f"{SECRET}\n")
    Api.answers = [(200, "It has 2 faults, so: 7.5.")]
    assert asked(url, key_env="JUDGE_KEY") == asked(url, key_file=str(tmp_path / "key")) == 0.75
    path, key, body = Api.asked[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", f"Bearer {SECRET}", "big")
    assert all(text in body["messages"][0]["content"] for text in ("What is 70 + 2?", "I say 72", "Right answer:\n72"))


def test_a_judge_that_is_busy_is_asked_again(url: str) -> None:
    """Services refuse at peaks: that is no failure of the run."""
    Api.answers = [(429, "slow down"), (503, ""), (200, "10")]
    assert asked(url) == 1.0
    assert len(Api.asked) == 3


@pytest.mark.parametrize(
    ("said", "score"),
    [("8/10", 0.8), ("Score: **7.5**/10.", 0.75), ("I give it 6 out of 10", 0.6), ("3 of 4 steps: 9 (out of 10)", 0.9),
     ("6-7", 0.7), ("-5", -0.5)],
)  # fmt: skip
def test_a_number_of_so_many_is_the_number_and_not_how_many(url: str, said: str, score: float) -> None:
    """Judges write so whatever they are asked: by the last number alone all of them would give full marks."""
    Api.answers = [(200, said)]
    assert asked(url) == pytest.approx(score)


@pytest.mark.parametrize("said", ["I cannot judge that.", "1000", "9" * 400])
def test_a_judge_that_gives_no_number_gives_no_score(url: str, said: str) -> None:
    """A refusal is no 0, and a completion that talks its judge into 1000 points wins nothing by it."""
    Api.answers = [(200, said)]
    assert asked(url) is None


@pytest.mark.parametrize(
    ("answers", "more", "error"),
    [
        ([(401, "no such key")], {}, "status 401: no such key"),
        ([(500, "")], {"tries": 2}, "2 tries failed, the last one with status 500"),
        ([(200, "10")], {"key_env": "NO_SUCH_KEY"}, "no environment variable NO_SUCH_KEY"),
        ([(200, "10")], {"key_file": "/no/such/file"}, "`key_file`: .*No such file"),
    ],
)
def test_what_asking_again_does_not_mend_is_told(
    url: str, answers: list[tuple[int, str]], more: dict[str, Any], error: str
) -> None:
    """In one line, with the place, and without the key."""
    Api.answers = answers
    with pytest.raises(judge.JudgeError, match=error):
        asked(url, **more)


def test_a_judge_that_is_not_there_is_told() -> None:
    """The most common mistake is the address."""
    with pytest.raises(judge.JudgeError, match="2 tries failed, the last one with ConnectError"):
        asked("http://127.0.0.1:9/v1", tries=2)


async def counted(url: str, **more: Any) -> dict[str, float]:
    """What a call counts that is answered by all that the judge has to say."""
    sums = counts.begin()
    await judge.score("I say 72", "72", "What is 70 + 2?", url=url, model="big", **more)
    return sums


def test_what_a_judge_costs_is_counted(url: str) -> None:
    """By its own words, and by the user's price of a million tokens."""
    Api.answers, Api.usage = [(429, ""), (200, "10")], {"prompt_tokens": 300, "completion_tokens": 50}
    tokens = {"judge_prompt_tokens": 300, "judge_completion_tokens": 50}
    requests = {"judge_requests": 2, "judge_retries": 1}
    assert asyncio.run(counted(url)) == requests | tokens
    cost = asyncio.run(counted(url, price={"prompt": 0.5, "completion": 2}))["judge_cost"]
    assert cost == pytest.approx((300 * 0.5 + 50 * 2) / 1e6)


@pytest.mark.parametrize("usage", [None, "much", {}, {"prompt_tokens": -1, "completion_tokens": 1e99}])
def test_a_judge_that_does_not_say_what_it_took_scores_all_the_same(url: str, usage: Any) -> None:
    """Not every server tells, and what it tells must not spoil a step's sums."""
    Api.answers, Api.usage = [(200, "10")], usage
    sums = asyncio.run(counted(url, price={"prompt": 1, "completion": 1}))
    assert sums == {"judge_requests": 1, "judge_prompt_tokens": 0, "judge_completion_tokens": 0, "judge_cost": 0}


@pytest.mark.parametrize("price", [3, {"prompt": 1}, {"prompt": 1, "completion": -2}, {"prompt": 1, "completion": "2"}])
def test_a_price_that_is_none_is_told(url: str, price: Any) -> None:
    with pytest.raises(judge.JudgeError, match="of a million tokens, such as"):
        asked(url, price=price)
