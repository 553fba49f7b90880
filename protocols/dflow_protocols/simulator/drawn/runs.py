"""What drawn worlds run: pipelines of many kinds and sizes, and how often there are two."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from ...names import CHUNK_BYTES
from ...pipeline.spec import Pipeline
from ...pipeline.weighing import adaptive
from ..toy import (
    two_steps,
    warm_then_two,
    with_adapters,
    with_adaptive_kl,
    with_async,
    with_kept_reference,
    with_lag,
    with_old_policy,
    with_role,
    with_rounds,
    with_segments,
    with_sizes,
    with_updates,
    with_whitening,
)
from .choice import Choice

RANGES_SHARE = 0.3  # of worlds, in which the parameters lie in three shards, and so do moments and gradients
AT_ONCE = (1, 1, 1, 2, 4)  # partitions that one slot works on together
ADAPTERS_SHARE = 0.2  # of worlds, in which a version holds adapters and names their base
WHITENS_SHARE = 0.15  # of worlds, in which advantages are whitened by those of the whole step
ADAPTS_SHARE = 0.1  # of worlds, in which weights of a divergence follow it
KEEPS_SHARE = 0.1  # of the others, in which a reference is the policy as GRPO began with it, or went on
ROUNDS_SHARE = 0.15  # of worlds, in which steps of GRPO sample again where they keep too little
ROUNDS = ((1, 2), (1, 4), (0.9, 3))  # share of a round's groups that is enough, rounds at most
LAG_SHARE = 0.2  # of worlds, in which rollouts are behind
LAGS = (1, 1, 2)  # by so many steps
ASYNC_SHARE = 0.2  # of the others, in which they are of whatever version there is, and so many behind at most
SEGMENTS_SHARE = 0.3  # of these, in which each is sampled in segments
ROLE_SHARE = 0.15  # of worlds, in which a stage requires what not every node offers
SKIP_SHARE = 0.12  # of worlds, in which a run leaves out what is at fault
PAUSE_SHARE = 0.12  # of worlds, in which the smaller part of a split waits
SIZED_SHARE = 0.12  # of worlds, in which a run has another size than the usual one
SIZES = ((1, 5, 4), (2, 1, 1), (2, 2, 2), (2, 12, 8), (3, 3, 4), (8, 2, 2), (2, 32, 8))  # steps, partitions, leaves
UPDATES_SHARE = 0.15  # of worlds, in which steps of GRPO make several updates, of two models
UPDATES = ((2, 1), (1, 2), (2, 2), (1, 4))  # epochs, mini-batches
SECOND_SHARE = 0.15  # of worlds, in which a second run is submitted
SECOND_AFTER_S = 4.0  # at most


def has_roles(seed: int, choice: Choice) -> bool:
    """Whether in this world a stage requires what not every node offers."""
    return choice.varies and Random(f"swarm/{seed}/roles").random() < ROLE_SHARE


def draw_pipelines(seed: int, rng: Random, choice: Choice) -> tuple[Pipeline, Pipeline]:
    """What a world runs, and what it runs where its checkpoints are to be needed."""
    sizes = {
        "range_bytes": CHUNK_BYTES if Random(f"swarm/{seed}/ranges").random() < RANGES_SHARE else 0,
        "at_once": Random(f"swarm/{seed}/at_once").choice(AT_ONCE),
    }
    pipeline, saving = rng.choice([two_steps, two_steps, warm_then_two])(**sizes), warm_then_two(every=1, **sizes)
    if choice.poisons:
        pipeline = saving = two_steps(on_poison="skip", **sizes)
    if choice.varies:
        pipeline, saving = _vary(seed, pipeline), _vary(seed, saving)
    updates = Random(f"swarm/{seed}/updates")
    if choice.varies and updates.random() < UPDATES_SHARE:
        epochs, minibatches = updates.choice(UPDATES)
        pipeline, saving = with_updates(pipeline, epochs, minibatches), with_updates(saving, epochs, minibatches)
    if Random(f"swarm/{seed}/bases").random() < ADAPTERS_SHARE:
        pipeline, saving = with_adapters(pipeline), with_adapters(saving)
    if Random(f"swarm/{seed}/whitens").random() < WHITENS_SHARE:
        pipeline, saving = with_whitening(pipeline), with_whitening(saving)
    if Random(f"swarm/{seed}/adapts").random() < ADAPTS_SHARE:
        pipeline, saving = with_adaptive_kl(pipeline), with_adaptive_kl(saving)
    rounds = Random(f"swarm/{seed}/rounds")
    if choice.varies and rounds.random() < ROUNDS_SHARE:
        until, most = rounds.choice(ROUNDS)
        pipeline, saving = with_rounds(pipeline, until, most), with_rounds(saving, until, most)
    if has_roles(seed, choice):
        pipeline, saving = with_role(pipeline), with_role(saving)
    lag = Random(f"swarm/{seed}/lag")
    if choice.varies and not adaptive(pipeline) and lag.random() < LAG_SHARE:
        behind = lag.choice(LAGS)
        pipeline, saving = with_lag(pipeline, behind), with_lag(saving, behind)
    loose = Random(f"swarm/{seed}/async")
    if choice.varies and not pipeline.lag and loose.random() < ASYNC_SHARE:
        most, change = loose.choice(LAGS), with_segments if loose.random() < SEGMENTS_SHARE else with_async
        if pipeline.schedule.versions > pipeline.schedule.steps:  # for the correction of what may be of any version
            pipeline, saving = with_old_policy(pipeline), with_old_policy(saving)
        pipeline, saving = change(pipeline, most), change(saving, most)
    if pipeline.ahead and pipeline.schedule.versions > pipeline.schedule.steps:
        pipeline, saving = _longer(pipeline), _longer(saving)
    keeps = Random(f"swarm/{seed}/keeps")
    if not adaptive(pipeline) and keeps.random() < KEEPS_SHARE:
        pipeline, saving = (with_kept_reference(each, _first_sampled(each)) for each in (pipeline, saving))
    return pipeline, saving


def _longer(pipeline: Pipeline) -> Pipeline:
    """Of as many steps more as rollouts are behind, so that some are of a version that several updates have led to."""
    return replace(pipeline, steps=pipeline.schedule.steps + pipeline.ahead)


def _first_sampled(pipeline: Pipeline) -> int:
    """The first step that begins with a version which GRPO samples from."""
    return max(0, pipeline.schedule.active["roll"].index(1) - pipeline.ahead)


def draw_second(rng: Random, first: Pipeline) -> Pipeline:
    """The other run of a world that has two: often of the very same spec."""
    return first if rng.random() < 0.5 else replace(two_steps(), on_poison=first.on_poison)


def _vary(seed: int, pipeline: Pipeline) -> Pipeline:
    size = Random(f"swarm/{seed}/size")
    if size.random() < SIZED_SHARE:
        steps, partitions, leaves = size.choice(SIZES)
        warm = pipeline.schedule.steps - 2  # those before the first one of GRPO
        pipeline = with_sizes(pipeline, warm + steps, partitions, leaves)
    if Random(f"swarm/{seed}/skips").random() < SKIP_SHARE:
        pipeline = replace(pipeline, on_poison="skip")
    if Random(f"swarm/{seed}/pauses").random() < PAUSE_SHARE:
        pipeline = replace(pipeline, on_split="pause_minority")
    return pipeline
