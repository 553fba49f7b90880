"""Which rewards a pipeline has, and how an advantage adds them up."""

from __future__ import annotations

from .spec import Pipeline, Stage


def reward_weights(stage: Stage) -> dict[str, float]:
    """The weight of each "stage.reward" that an `advantage` stage reads, in the order in which they are added up."""
    given = stage.config.get("rewards")
    reads = sorted(read for read in stage.reads if read.endswith(".reward"))
    return {read: float(given[read.partition(".")[0]]) if given else 1.0 for read in reads}


def reward_stages(pipeline: Pipeline) -> tuple[str, ...]:
    """Stages that write a `reward`, as written: the built-in ones and those of the user's own."""
    return tuple(stage.id for stage in pipeline.stages if "reward" in stage.writes)
