"""An emulated device's seconds follow from tokens as a real one's do."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dflowd.engines.emulated import profile as emulated
from dflowd.engines.emulated.profile import PROFILE, Device, decode_steps, draw_lengths, generate_s, score_s, train_s
from dflowd.jobs.job import Job
from dflowd.slots.doing import NOTHING


def profile(**given: float) -> dict[str, float]:
    return {**PROFILE, "generate_s": 0.0, "gradient_s": 0.0, **given}


def test_a_batch_that_runs_whole_takes_as_many_steps_as_its_longest_sequence() -> None:
    assert decode_steps([3, 9, 1], running=0) == 9


def test_a_sequence_begins_when_one_that_runs_ends() -> None:
    """Two at once of 5, 2, 4 and 1: the third follows the second, the fourth the first."""
    assert decode_steps([5, 2, 4, 1], running=2) == 6


def test_no_sequence_takes_no_step() -> None:
    assert decode_steps([], running=4) == 0


def test_prompts_steps_and_tokens_each_take_their_time() -> None:
    of = profile(prefill_token_s=0.001, prompt_tokens=10, decode_step_s=0.1, decode_token_s=0.01)
    assert generate_s(of, prompts=2, lengths=[3, 5]) == pytest.approx(0.02 + 0.5 + 0.08)


def test_scoring_and_training_take_what_their_tokens_take() -> None:
    assert score_s(profile(score_token_s=0.5), 4) == 2.0
    assert train_s(profile(train_token_s=0.25, gradient_s=1.0), 4) == 2.0


def test_lengths_with_a_tail_have_the_mean_and_end_at_the_longest() -> None:
    drawn = draw_lengths(profile(tokens=1000, tail=0.8), np.random.default_rng(1), 20_000, longest=8192)
    assert drawn.mean() == pytest.approx(1000, rel=0.03)
    assert drawn.max() <= 8192
    assert np.median(drawn) < 800  # few long ones make up for it


class PretendedTime:
    """Of a process in which nothing takes longer than it sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_what_fills_a_device_stops_the_sampling_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device does one or the other: a mesh that scores while it samples would else compute for nothing."""
    clock, device, of = PretendedTime(), Device(), profile()
    monkeypatch.setattr(emulated, "time", clock)
    scored = list[float]()

    def drift(_: object, seconds: float) -> None:
        clock.sleep(seconds)
        if not scored:
            scored.append(clock.now)
            device.fill(job, of, 0.5)

    baton = SimpleNamespace(aboard=nullcontext, drift=drift)
    job = cast(Job, cast(Any, SimpleNamespace(baton=baton, board=SimpleNamespace(read=lambda: NOTHING), progress=int)))
    device.share(job, of, 1.0)
    assert clock.now == pytest.approx(1.5)
    assert scored[0] < 1.0
