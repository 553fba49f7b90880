"""What a run changed: held-out figures first and last, and what was answered to the same question then and now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAIRS = 8
ALONE = 6  # samples of the first steps and of the last ones, where no question came twice


@dataclass(frozen=True, slots=True)
class Measured:
    """An `evaluate` stage at the first and the last step that it measured."""

    stage: str
    first_step: int
    first: float
    last_step: int
    last: float
    count: int | None


@dataclass(frozen=True, slots=True)
class Said:
    """One completion. `answer`: the right one, where the data has one; `reward`: None where it got none."""

    step: int
    prompt: str
    completion: str
    reward: float | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class Pair:
    """The same question early and late."""

    before: Said
    after: Said


def measured_of(evals: Iterable[Mapping[str, Any]]) -> list[Measured]:
    """By stage, in the order in which they first measured."""
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(evals, key=lambda row: int(row["step"])):
        by_stage.setdefault(str(row.get("stage", "")), []).append(row)
    return [
        Measured(
            stage,
            int(rows[0]["step"]),
            float(rows[0]["accuracy"]),
            int(rows[-1]["step"]),
            float(rows[-1]["accuracy"]),
            rows[-1].get("count"),
        )
        for stage, rows in by_stage.items()
    ]


def pairs_of(samples: Iterable[Mapping[str, Any]]) -> list[Pair]:
    """Questions that were answered at two steps, those that lie furthest apart first."""
    by_prompt: dict[str, list[Said]] = {}
    for said in _in_order(samples):
        by_prompt.setdefault(said.prompt, []).append(said)
    pairs = [Pair(told[0], told[-1]) for told in by_prompt.values() if told[0].step < told[-1].step]
    return sorted(pairs, key=lambda pair: pair.before.step - pair.after.step)[:PAIRS]


def ends_of(samples: Iterable[Mapping[str, Any]]) -> tuple[list[Said], list[Said]]:
    """Some of the first step that has samples, and some of the last one; nothing of a run that has them of one step."""
    told = _in_order(samples)
    if not told or told[0].step == told[-1].step:
        return [], []
    first = [said for said in told if said.step == told[0].step]
    last = [said for said in told if said.step == told[-1].step]
    return first[:ALONE], last[:ALONE]


def _in_order(samples: Iterable[Mapping[str, Any]]) -> Sequence[Said]:
    told = [
        Said(
            int(sample["step"]),
            str(sample.get("prompt", "")),
            str(sample.get("completion", "")),
            None if sample.get("reward") is None else float(sample["reward"]),
            None if sample.get("answer") is None else str(sample["answer"]),
        )
        for sample in samples
    ]
    return sorted(told, key=lambda said: said.step)
