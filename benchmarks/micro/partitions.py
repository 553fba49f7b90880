"""How many tokens a second does a chain's sampling stage say, one partition a call against several at once?

One engine of vLLM in one process, whole calls as a slot's child does them: prompts, tokens, texts, hashed shards. The
two ways take turns, each with prompts of its own, so that what else the machine does meets them alike and neither finds
the other's keys and values. The first turn of both, with all that is built in it, is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from benchmarks.engines import EXAMPLES, served
from benchmarks.figure import Figure, Tell
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.work import ChainWork, Done, Failed

QUICK = {"partitions": 4, "rounds": 2, "tokens": 16}


def measure(
    tell: Tell,
    *,
    model: Annotated[str, "folder of the model"] = "out/smollm2",
    partitions: Annotated[int, "at once"] = 8,
    prompts: Annotated[int, "of a partition"] = 2,
    group: Annotated[int, "completions of a prompt"] = 4,
    tokens: Annotated[int, "of each completion at most"] = 48,
    rounds: Annotated[int, "turns of each way"] = 4,
) -> list[Figure]:
    folder = served(model)
    from dflowd.engines.registry import open_engine
    from dflowd.jobs.baton import Baton
    from tests.support.alone import Alone

    pipeline = Pipeline.from_dict(spec(folder, partitions, prompts, group, tokens, 2 * rounds + 2))
    rates: dict[str, list[float]] = {"alone": [], "together": []}
    with TemporaryDirectory() as base:
        alone = Alone(open_engine("vllm"), pipeline, Path(base), Path(base))
        for turn in range(rounds + 1):
            for way, name in enumerate(rates):
                works = [ChainWork(2 * turn + way, ("roll",), part, ()) for part in range(partitions)]
                start = time.perf_counter()
                done = [alone.perform(work) for work in works] if name == "alone" else alone.together(works, Baton())
                seconds = time.perf_counter() - start
                if turn:
                    rates[name].append(said(done) / seconds)
                    tell({"turn": turn, "way": name, "tokens/s": round(rates[name][-1], 1)})
    found = {name: statistics.median(values) for name, values in rates.items()}
    what = f"tokens a second, {partitions} partitions of {prompts * group} completions at once"
    return [Figure(what, "tokens/s", found["together"], "one partition a call", found["alone"])]


def said(ends: Sequence[Done | Failed]) -> int:
    """Tokens of these partitions."""
    made = [made for end in ends if isinstance(end, Done) for made in end.made]
    assert len(made) == len(ends), ends
    return sum(int(dict(each.metrics)["completion_tokens"]) for each in made)


def spec(folder: Path, partitions: int, prompts: int, group: int, tokens: int, steps: int) -> dict[str, Any]:
    count = prompts * partitions
    rollout = {"data": "sums", "prompts": count, "group": group, "partitions": partitions, "max_tokens": tokens}
    return {
        "name": "partitions",
        "steps": steps,
        "models": {"policy": {"path": str(folder)}},
        "data": {"sums": {"reasoning_gym": "basic_arithmetic", "template": f"{EXAMPLES}{{prompt}}"}},
        "stages": [
            {
                "id": "roll",
                "op": "generate",
                "model": "policy",
                "engine": "vllm",
                "config": rollout | {"max_tokens": tokens},
            },
            {"id": "score", "op": "reward"},
            {"id": "adv", "op": "advantage"},
            {"id": "learn", "op": "train", "model": "policy", "config": {"optimizer": {"adamw": {"lr": 1e-3}}}},
        ],
    }
