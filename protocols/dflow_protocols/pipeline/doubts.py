"""Doubts: what a pipeline can run and probably does not mean, as far as the spec alone shows it.

A doubt stops nothing: clients tell it before a run is submitted, when a night has not been spent yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from .problem import Problem
from .spec import Pipeline, Stage


def doubts(pipeline: Pipeline) -> Iterator[Problem]:
    """Every doubt, by the stages' order; paths as in a Problem of validation."""
    for index, stage in enumerate(pipeline.stages):
        if stage.op == "generate":
            yield from _sampling(stage, f"stages[{index}]")


def _sampling(stage: Stage, place: str) -> Iterator[Problem]:
    if stage.config["top_p"] < 1:
        what = f"stage `{stage.id}`: `top_p` {stage.config['top_p']:g} samples from another policy than the one trained"
        hint = "training takes the full vocabulary's probabilities: leave `top_p` out unless the bias is meant"
        yield Problem(f"{place}.config.top_p", what, hint)
