"""A workload as somebody published it, and the same scaled down to what one machine carries.

A file of profiles/ says what one node does in a step: how many prompts, how long the completions are, how many bytes a
sample has, how many seconds it computes and what part of them each stage takes. Its numbers are of the publication it
names, or say that they are assumed. Prompts and seconds are divided by one factor; what a sample has stays, so bytes a
second stay, too, and a control plane has as little time as that factor says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dflow_protocols.pipeline import Pipeline
from dflowd.engines.emulated.profile import PROFILE, decode_steps, draw_lengths, generate_s

FOLDER = Path(__file__).parent / "profiles"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
PARTITIONS = 4  # a node, which it samples together: so one that is slow can give some away
LEAVES = 4  # a node, or more, as in all they are a power of two; fewer where there are fewer prompts
LEAST_GROUP = 2
DRAWS = 200  # batches by which a step's seconds are met
STEP_SHARE = 0.7  # of the seconds of sampling: decode steps, which cost what reading weights costs; the rest: sequences
TOKEN_BYTES = 8  # of a sampled token: its id and its log-probability


@dataclass(frozen=True)
class Profile:
    """What one node does in a step, scaled down. `published`: system -> nodes -> what it reached, in `unit`."""

    name: str
    about: str
    source: str
    prompts: int
    group: int
    seconds: float
    prompt_tokens: int
    tokens: float
    tail: float
    max_tokens: int
    sample_bytes: int
    shares: Mapping[str, float]
    scale: float
    published: Mapping[str, Mapping[str, float]]
    unit: str

    @property
    def samples(self) -> int:
        """Of a node and step."""
        return self.prompts * self.group

    @property
    def hour_s(self) -> float:
        """Seconds that stand for an hour."""
        return 3600.0 / self.scale

    def on_slower(self, times: float) -> Profile:
        """The same on devices that are slower by this factor."""
        return replace(self, seconds=self.seconds * times)

    @cached_property
    def device(self) -> dict[str, float]:
        """The emulated engine's profile with which a node computes as many seconds a step as this says, in the mean."""
        shape = {**PROFILE, "tokens": self.tokens, "tail": self.tail, "generate_s": 0.0}
        rng = np.random.default_rng(0)
        sizes = (DRAWS, PARTITIONS, self.samples // PARTITIONS)
        drawn = draw_lengths(shape, rng, int(np.prod(sizes)), self.max_tokens).reshape(sizes)
        steps = np.array([[decode_steps(part, 0) for part in batch] for batch in drawn])
        tokens = drawn.sum(axis=2)  # [draws, partitions]
        sampling = self.seconds * self.shares["generate"]
        step_s, token_s = STEP_SHARE * sampling / steps.max(1).mean(), (1 - STEP_SHARE) * sampling / tokens.mean()
        too_long = float((step_s * steps + token_s * tokens).max(1).mean()) / sampling  # the longest has most tokens
        of_a_node = float(tokens.sum(1).mean())
        return {
            "tokens": self.tokens,
            "tail": self.tail,
            "prompt_tokens": self.prompt_tokens,
            "decode_step_s": float(step_s) / too_long,
            "decode_token_s": float(token_s) / too_long,
            "score_token_s": self.seconds * self.shares["score"] / of_a_node,
            "train_token_s": self.seconds * self.shares["train"] / of_a_node,
            "sample_bytes": max(0, round(self.sample_bytes - TOKEN_BYTES * self.tokens)),
            "at_once": PARTITIONS,
            "generate_s": 0.0,
            "gradient_s": 0.0,
            "evaluate_s": 0.0,
            "apply_s": 0.0,
        }

    def batch(self, rng: np.random.Generator) -> list[Any]:
        """Lengths of the completions of one node and step, by partition."""
        shape = {**PROFILE, **self.device}
        return [draw_lengths(shape, rng, self.samples // PARTITIONS, self.max_tokens) for _ in range(PARTITIONS)]

    def generate_s(self, batch: list[Any]) -> float:
        """A node's seconds of sampling its partitions together."""
        shape = {**PROFILE, **self.device}
        return max(generate_s(shape, len(lengths) // self.group, lengths) for lengths in batch)

    def pipeline(self, nodes: int, steps: int, seed: int = 1) -> Pipeline:
        """The run for so many nodes' work: generate, score by a reference, reward, advantage, train."""
        roll = {
            "data": "words",
            "prompts": self.prompts * nodes,
            "group": self.group,
            "partitions": PARTITIONS * nodes,
            "max_tokens": self.max_tokens,
        }
        wanted, most = (LEAVES * nodes - 1).bit_length(), (self.prompts * nodes).bit_length() - 1
        learn = {"leaves": 1 << min(wanted, most), "optimizer": {"adamw": {"lr": 1e-3}}}
        model = {"init": {"config": "c.json", "tokenizer": "t"}}
        return Pipeline.from_dict(
            {
                "name": self.name,
                "seed": seed,
                "steps": steps,
                "engine": "emulated",
                "emulated": self.device,
                "models": {"policy": model, "reference": model},
                "data": {"words": {"reasoning_gym": "spell_backward"}},
                "stages": [
                    {"id": "roll", "op": "generate", "model": "policy", "config": roll},
                    {"id": "ref", "op": "logprob", "model": "reference"},
                    {"id": "score", "op": "reward"},
                    {"id": "adv", "op": "advantage", "config": {"method": "grpo"}},
                    {"id": "learn", "op": "train", "model": "policy", "config": learn},
                ],
            }
        )


def load(name: str, smaller: float = 1.0) -> Profile:
    """The profile of this name, one of `NAMES`, scaled down as it says, and by `smaller` beyond that. Where prompts
    would be fewer than partitions, groups are smaller."""
    told = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    step, scale = told["step"], float(told["scale"]["by"]) * smaller
    wanted = step.pop("prompts") / scale
    prompts = max(PARTITIONS, round(wanted / PARTITIONS) * PARTITIONS)
    step["group"] = max(LEAST_GROUP, round(step["group"] * min(1.0, wanted / prompts)))
    return Profile(
        name=name,
        about=told["about"],
        source=told["source"],
        prompts=prompts,
        seconds=step.pop("seconds") / scale,
        shares=told["share"],
        scale=scale,
        published=told["published"],
        unit=told.get("unit", ""),
        **step,
    )
