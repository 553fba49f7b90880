"""What a pipeline weighs: rewards against each other, and a divergence against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .grammar.algorithms import KL_HORIZON
from .spec import Pipeline, Stage


def reward_weights(stage: Stage) -> dict[str, float]:
    """The weight of each "stage.reward" that an `advantage` stage reads, in the order in which they are added up."""
    given = stage.config.get("rewards")
    reads = sorted(read for read in stage.reads if read.endswith(".reward"))
    return {read: float(given[read.partition(".")[0]]) if given else 1.0 for read in reads}


def reward_stages(pipeline: Pipeline) -> tuple[str, ...]:
    """Stages that write a `reward`, as written: the built-in ones and those of the user's own."""
    return tuple(stage.id for stage in pipeline.stages if "reward" in stage.writes)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """A weight of a divergence from a reference that follows it from step to step.

    `stage`: an `advantage` or a `train` stage, whose weight it is. `measured`: the `logprob` stage whose records tell
    how far the two are apart. `coefficient`: the weight in version 0. `target`: nats a token. `horizon`: completions.
    """

    stage: str
    measured: str
    coefficient: float
    target: float
    horizon: int


def adaptive(pipeline: Pipeline) -> tuple[Adaptive, ...]:
    """All of a pipeline, by stage."""
    return tuple(sorted(_adaptive(pipeline), key=lambda each: each.stage))


def _adaptive(pipeline: Pipeline) -> Iterator[Adaptive]:
    for stage in pipeline.stages:
        settings = _weighed(stage)
        if settings.get("kl_target") is None:
            continue
        scored = [read.partition(".")[0] for read in stage.reads if read.endswith(".logprob")]
        reference = next(name for name in scored if pipeline.stage(name).model != stage.model)
        horizon = int(settings.get("kl_horizon", KL_HORIZON))
        yield Adaptive(stage.id, reference, float(settings["kl"]), float(settings["kl_target"]), horizon)


def _weighed(stage: Stage) -> Mapping[str, Any]:
    """The settings of a built-in stage among which the weight of a divergence may be: a training's are its loss's."""
    if stage.operator.trains is not None:
        loss: Mapping[str, Any] = stage.config.get("loss") or {}
        return loss
    return stage.config if stage.operator.methods else {}


def with_coefficients(stage: Stage, coefficients: Iterable[tuple[str, float]]) -> Stage:
    """The stage with the weight of its divergence as it is now, if it is among these, by stage."""
    kl = dict(coefficients).get(stage.id)
    if kl is None:
        return stage
    settings = {**_weighed(stage), "kl": kl}
    return replace(stage, config=settings if stage.operator.trains is None else {**stage.config, "loss": settings})
