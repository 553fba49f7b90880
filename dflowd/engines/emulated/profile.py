"""How long an emulated device takes, and how much it writes: what a spec's `emulated` section may set.

A profile says seconds a call, as tests like it, or seconds a token, as a real device is measured: then prefill takes
what its prompts take, a decode step what it takes to read the weights and a little for each sequence that runs, scoring
and training what their tokens take. Both may be given; they add up.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.ranges import RANGE_BYTES
from dflowd.jobs.job import Job

PROFILE: Mapping[str, float] = {
    "parameters": 4096,  # float32 values in a gradient
    "range_bytes": RANGE_BYTES,  # of parameters in one shard
    "generate_s": 0.02,  # a partition's generate
    "reward_s": 0.0,  # a partition's reward, advantage, or batch of demonstrations
    "evaluate_s": 0.02,  # a partition's evaluate
    "gradient_s": 0.02,  # a leaf
    "reduce_s": 0.0,  # a slice
    "apply_s": 0.005,  # an update
    "save_s": 0.0,  # a checkpoint
    "prefill_token_s": 0.0,  # a token of a prompt
    "decode_step_s": 0.0,  # a decode step, whatever runs
    "decode_token_s": 0.0,  # a token of a completion, beside its part of a step
    "score_token_s": 0.0,  # a token of a completion that a model scores
    "train_token_s": 0.0,  # a token of a completion that a leaf trains on
    "switch_s": 0.0,  # a slot that samples after it trained, or trains after it sampled
    "prompt_tokens": 0,  # of every prompt
    "tokens": 32,  # mean length of a completion
    "tail": 0.0,  # sigma of the log-normal lengths; 0: anything from one token to twice the mean is as likely
    "running": 0,  # sequences that a slot decodes at once; 0: all of its partition
    "sample_bytes": 0,  # of each rollout, beside its tokens: images, masks
    "jitter": 0.0,  # each sleep is stretched by up to this share, drawn anew
    "noise": 0.0,  # not 0: other bytes at every execution
    "kills": 0,  # 1 + the partition whose generate ends the engine's process
    "raises": 0,  # 1 + the partition whose generate raises the user's error
    "hangs": 0,  # 1 + the partition whose generate makes no progress
    "at_once": 1,  # partitions that one slot generates together, in the time of one
}
"""Seconds, counts and shares."""

SPEED = float(os.environ.get("DFLOWD_EMULATED_SPEED", "1"))  # of this host beside others; 0: it is broken
NAP_S = 0.05  # the longest sleep between two signs of progress

Profile = Mapping[str, float]


def profile_of(pipeline: Pipeline) -> dict[str, float]:
    return {**PROFILE, **{key: float(value) for key, value in (pipeline.emulated or {}).items()}}


def draw_lengths(profile: Profile, rng: np.random.Generator, count: int, longest: float) -> Any:
    """Tokens of `count` completions, [count] int32. With a `tail` log-normal of that mean and cut off at `longest`, so
    that few long ones decide how long a batch takes, as in production (PolyTrace, arXiv 2509.25279)."""
    mean, sigma = profile["tokens"], profile["tail"]
    if not sigma:
        return rng.integers(1, 2 * int(mean) + 1, count).astype(np.int32)
    return rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count).clip(1, longest).astype(np.int32)


def generate_s(profile: Profile, prompts: int, lengths: Iterable[int]) -> float:
    """A partition's seconds of sampling completions of these lengths to that many prompts, which are prefilled once."""
    lengths = [int(length) for length in lengths]
    steps = decode_steps(lengths, int(profile["running"]))
    return (
        profile["generate_s"]
        + profile["prefill_token_s"] * profile["prompt_tokens"] * prompts
        + profile["decode_step_s"] * steps
        + profile["decode_token_s"] * sum(lengths)
    )


def decode_steps(lengths: Iterable[int], running: int) -> int:
    """Steps until the last sequence ends, if at most `running` run at once and the next begins as soon as one ends."""
    ends: list[int] = []
    for length in lengths:
        began = heapq.heappop(ends) if running and len(ends) == running else 0
        heapq.heappush(ends, began + length)
    return max(ends, default=0)


def score_s(profile: Profile, tokens: int) -> float:
    """A partition's seconds of scoring so many tokens of completions."""
    return profile["score_token_s"] * tokens


def train_s(profile: Profile, tokens: int) -> float:
    """A leaf's seconds."""
    return profile["gradient_s"] + profile["train_token_s"] * tokens


class Device:
    """One slot's. Partitions that are sampled together share it; what fills it stops their sampling, and the host's
    work does not."""

    def __init__(self) -> None:
        self._phase = ""
        self._filled_s = 0.0  # in all

    def enter(self, job: Job, profile: Profile, phase: str) -> None:
        """Models are loaded and caches made where it was last used for another phase."""
        if self._phase not in ("", phase):
            self.share(job, profile, profile["switch_s"])
        self._phase = phase

    def share(self, job: Job, profile: Profile, seconds: float) -> None:
        """Take so long beside others that do the same. Raises RuntimeError on a host that is broken."""
        until, doing = time.monotonic() + _stretched(profile, seconds) - self._filled_s, job.board.read()
        with job.baton.aboard():
            while (left := until + self._filled_s - time.monotonic()) > 0:
                job.baton.drift(doing, min(left, NAP_S))
                job.progress()

    def fill(self, job: Job, profile: Profile, seconds: float) -> None:
        """Take so long, in which nothing else is computed. Raises RuntimeError on a host that is broken."""
        took = _stretched(profile, seconds)
        until = time.monotonic() + took
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, NAP_S))
            job.progress()
        self._filled_s += took


def _stretched(profile: Profile, seconds: float) -> float:
    """What this host takes. Raises RuntimeError where it is broken."""
    if not SPEED:
        raise RuntimeError("this host is broken")
    jitter = 1 + profile["jitter"] * float(np.random.default_rng().random()) if profile["jitter"] else 1.0
    return seconds * jitter / SPEED


SAMPLING, TRAINING = "sampling", "training"
