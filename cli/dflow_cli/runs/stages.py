"""The stages of a run in its pipeline's order, in which every table and picture has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dflow_protocols.pipeline import Pipeline


def read_pipeline(spec: bytes) -> Pipeline | None:
    """The pipeline of a canonical spec; None where this version cannot read it: a run of newer daemons can still be
    watched."""
    from dflow_protocols.pipeline import Pipeline, SpecError

    try:
        return Pipeline.from_canonical(spec)
    except SpecError:
        return None


def stage_names(spec: bytes) -> tuple[str, ...]:
    """Ids in the pipeline's order; none of a spec that cannot be read."""
    pipeline = read_pipeline(spec)
    return tuple(stage.id for stage in pipeline.stages) if pipeline is not None else ()


def in_order(names: Iterable[str], stages: Sequence[str]) -> list[str]:
    """`names` (STAGE, or STAGE.PART as in `learn.apply`) by the order of `stages`; what belongs to none comes last."""
    places = {stage: place for place, stage in enumerate(stages)}
    return sorted(names, key=lambda name: (places.get(name.partition(".")[0], len(places)), name))
