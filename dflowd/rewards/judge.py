"""A judge behind an API like OpenAI's chat completions, as vLLM, SGLang and most services offer it.

    config:
      function: "dflowd.rewards.judge:score"
      args: {url: "http://judge:8000/v1", model: NAME, key_env: JUDGE_KEY}

The key is named by the environment variable or the file that holds it on the host: a spec is read by everybody. What is
asked, and the tokens that answers tell in `usage`, is counted in the step's metrics, and its cost by the stage's price.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dflow_protocols import metrics
from dflowd.workers.counts import count

QUESTION = """Question:
{prompt}

Right answer:
{answer}

Answer to be judged:
{completion}

How good is the answer to be judged, from 0 (wrong) to 10 (right and complete)? End with the number alone."""
NUMBER = r"((?:(?<!\d)-)?\d+(?:\.\d+)?)(?:\W*(?:/|out of)\s*\d+(?:\.\d+)?)?\W*$"
"""The last thing said; of "8/10" and "8 out of 10" the 8."""
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)  # answers after which asking again may help
FIRST_WAIT_S = 0.5  # before the second try; then twice as long each time
MOST_WAIT_S = 20.0
PRICED = 1e6  # tokens that a price is of
MOST_TOKENS = 1 << 40  # that an answer may claim: what a server says must not spoil a step's sums
SHOWN = 200  # characters of an error's body

_clients: dict[int, Any] = {}  # by event loop: connections are kept open between calls


class JudgeError(Exception):
    """The judge cannot be asked, or says that it was asked wrongly."""


async def score(
    completion: str,
    answer: str,
    prompt: str,
    *,
    url: str,
    model: str,
    key_env: str = "",
    key_file: str = "",
    question: str = QUESTION,
    number: str = NUMBER,
    full: float = 10.0,
    max_tokens: int = 512,
    tries: int = 4,
    price: Mapping[str, float] | None = None,
) -> float | None:
    """The number that the judge ends with, over `full`; None where it ends with none, or with more than `full`.

    `url`: up to and with `/v1`. `question`: what it is asked, with {prompt}, {answer} and {completion}. `number`: a
    regular expression whose first group is the number. `price`: of a million tokens, as {"prompt": 0.5, "completion":
    2.0}. Raises JudgeError.
    """
    prices = _prices(price)
    said = question.replace("{prompt}", prompt).replace("{answer}", answer).replace("{completion}", completion)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": said}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    key = _key(key_env, key_file)
    told = await _ask(f"{url.rstrip('/')}/chat/completions", body, key, tries, prices)
    found = re.search(number, told.strip())
    value = None if found is None else float(found.group(1)) / full
    return None if value is None or value > 1 else value  # more than full marks is no answer to the question


async def _ask(url: str, body: dict[str, Any], key: str, tries: int, prices: tuple[float, float] | None) -> str:
    import httpx2

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    why = ""
    for attempt in range(tries):
        if attempt:
            await asyncio.sleep(min(MOST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)))
            count(metrics.JUDGE_RETRIES)
        count(metrics.JUDGE_REQUESTS)
        try:
            answer = await _client().post(url, json=body, headers=headers)
        except httpx2.HTTPError as error:
            why = f"{type(error).__name__}: {error}"
            continue
        if answer.status_code in BUSY:
            why = f"status {answer.status_code}"
            continue
        if answer.status_code != 200:
            raise JudgeError(f"{url}: status {answer.status_code}: {' '.join(answer.text.split())[:SHOWN]}")
        try:
            told = answer.json()
            said = str(told["choices"][0]["message"]["content"] or "")
            _count_tokens(told.get("usage"), prices)
            return said
        except (ValueError, LookupError, TypeError) as error:
            raise JudgeError(f"{url}: no chat completion: {' '.join(answer.text.split())[:SHOWN]}") from error
    raise JudgeError(f"{url}: {tries} tries failed, the last one with {why}")


def _count_tokens(usage: Any, prices: tuple[float, float] | None) -> None:
    """What an answer took, as it says; not every server does."""
    given = usage if isinstance(usage, dict) else {}
    taken = [given.get(key) for key in ("prompt_tokens", "completion_tokens")]
    tokens = [amount if type(amount) is int and 0 <= amount < MOST_TOKENS else 0 for amount in taken]
    count(metrics.JUDGE_PROMPT_TOKENS, tokens[0])
    count(metrics.JUDGE_COMPLETION_TOKENS, tokens[1])
    if prices is not None:
        count(metrics.JUDGE_COST, sum(each * price for each, price in zip(tokens, prices, strict=True)) / PRICED)


def _prices(price: Mapping[str, float] | None) -> tuple[float, float] | None:
    """Of a million tokens of prompts, and of completions."""
    if price is None:
        return None
    is_whole = isinstance(price, Mapping) and set(price) == {"prompt", "completion"}
    if not is_whole or not all(type(each) in (int, float) and 0 <= each < PRICED for each in price.values()):
        raise JudgeError(f"`price` is {price}; it is of a million tokens, such as {{prompt: 0.5, completion: 2.0}}")
    return float(price["prompt"]), float(price["completion"])


def _client() -> Any:
    """One for each event loop, without a time limit of its own: the call has one."""
    import httpx2

    loop = id(asyncio.get_running_loop())
    if loop not in _clients:
        _clients[loop] = httpx2.AsyncClient(timeout=httpx2.Timeout(None, connect=10.0))
    return _clients[loop]


def _key(variable: str, file: str) -> str:
    if variable:
        try:
            return os.environ[variable]
        except KeyError:
            raise JudgeError(f"`key_env`: this host's daemon has no environment variable {variable}") from None
    if file:
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise JudgeError(f"`key_file`: {error}") from None
    return ""
