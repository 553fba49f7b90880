"""Doubts: what a pipeline can run and probably does not mean, as far as the spec alone shows it.

A doubt stops nothing: clients tell it before a run is submitted, when a night has not been spent yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from .problem import Problem
from .spec import Pipeline, Stage


def doubts(pipeline: Pipeline) -> Iterator[Problem]:
    """Every doubt, by the stages' order; paths as in a Problem of validation."""
    read = {name for stage in pipeline.stages for name in stage.reads}
    for index, stage in enumerate(pipeline.stages):
        if "reward" in stage.writes and f"{stage.id}.reward" not in read:
            yield _unread(pipeline, stage, f"stages[{index}]")
        if stage.op == "generate":
            yield from _sampling(stage, f"stages[{index}]")
        if stage.op == "evaluate":
            yield from _evaluation(stage, f"stages[{index}]")


def _sampling(stage: Stage, place: str) -> Iterator[Problem]:
    if stage.config["top_p"] < 1:
        what = f"stage `{stage.id}`: `top_p` {stage.config['top_p']:g} samples from another policy than the one trained"
        hint = "training takes the full vocabulary's probabilities: leave `top_p` out unless the bias is meant"
        yield Problem(f"{place}.config.top_p", what, hint)


def _evaluation(stage: Stage, place: str) -> Iterator[Problem]:
    for key in ("temperature", "top_p") if stage.config["greedy"] else ():
        if stage.config[key] != 1:
            what = f"stage `{stage.id}`: `{key}` {stage.config[key]:g} changes nothing: it takes the likeliest tokens"
            yield Problem(f"{place}.config.{key}", what, f"add `greedy: false`, or leave `{key}` out")


def _unread(pipeline: Pipeline, stage: Stage, place: str) -> Problem:
    reader = next((other for other in pipeline.stages if other.op == "advantage"), None)
    names = {other.id: 1.0 for other in pipeline.stages if "reward" in other.writes}
    weights = ", ".join(f"{name}: {weight}" for name, weight in names.items())
    where = f"in the config of `{reader.id}`" if reader is not None else "in the config of an `advantage` stage"
    what = f"nothing reads the reward of `{stage.id}`: it is measured, and not trained on"
    return Problem(place, what, f"{where}, `rewards: {{{weights}}}` adds them up (weight 0: only measured)")
