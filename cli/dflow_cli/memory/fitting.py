"""Whether a pipeline's needs fit into the daemons of a mesh, and what would make them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dflow_protocols.pipeline import Pipeline

from ..output import amount
from .needs import BYTES, VLLM_ASLEEP, Needs, has_vllm, trained_of
from .outline import Outline

Facts = Mapping[str, Any]

HOST = "host"
RANK = 16  # of the adapters that are proposed
GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """One kind of memory of a daemon. `there`: None where it does not tell. `mend`: what would make it fit."""

    node: str
    kind: str
    needed: int
    there: int | None
    mend: str = ""

    @property
    def fits(self) -> bool:
        return self.there is None or self.needed <= self.there


def places_of(
    pipeline: Pipeline, outlines: Mapping[str, Outline], members: Sequence[Facts], needs_on: Callable[[bool], Needs]
) -> Iterator[Place]:
    """`members`: daemons' answers to `doctor`. `needs_on`: the needs of a slot with a GPU of its own, or without."""
    on_host: dict[str, list[tuple[Place, int]]] = {}  # by its boot: what each daemon needs, and what all have
    for member in members:
        for place in _places_on(pipeline, outlines, member, needs_on):
            if place.kind == HOST:
                on_host.setdefault(member.get("boot_id") or str(member["name"]), []).append(
                    (place, member["memory"]["total"])
                )
            yield place
    for sharing in on_host.values():
        if len(sharing) > 1:
            names = ", ".join(place.node for place, _ in sharing)
            needed = sum(place.needed for place, _ in sharing)
            yield Place(names, "host, together", needed, sharing[0][1], f"fewer daemons there; or {sharing[0][0].mend}")


def _places_on(
    pipeline: Pipeline, outlines: Mapping[str, Outline], member: Facts, needs_on: Callable[[bool], Needs]
) -> Iterator[Place]:
    gpus, name, memory = member.get("gpus") or [], str(member["name"]), member["memory"]
    has_gpu = bool(gpus) or not str(member["device"]).startswith("cpu")
    needs = needs_on(has_gpu)
    slots = max(1, int(member.get("slots", 1)))
    smaller = _smaller(pipeline, outlines)
    room = -(-needs.most_shards * 11 // 10 // GB)  # a tenth for what is on its way
    mend = f'give the daemon DFLOWD_SHARDS_MEMORY_LIMIT="{room} GB"; or {smaller}'
    yield Place(name, "shards", needs.most_shards, int(memory["shards_limit"]), mend)
    host = min(memory["total"], memory["cgroup_limit"] or memory["total"])
    mend = f"fewer `engine.slots`, a smaller `micro_batch_tokens`; or {smaller}"
    yield Place(name, HOST, needs.most_shards + slots * needs.most_engine, host, mend)
    for index, gpu in enumerate(gpus or [{"memory_total": None}] * has_gpu):  # one whose driver is not asked
        total = gpu["memory_total"]
        left = total if total is None or not has_vllm(pipeline) else total - VLLM_ASLEEP
        mend = "`compute: bfloat16`, a smaller `micro_batch_tokens`"
        yield Place(name, f"GPU {index}", needs.most_device, left, f"{mend}; or {smaller}")


def _smaller(pipeline: Pipeline, outlines: Mapping[str, Outline]) -> str:
    """A way to train less of the first model that is trained whole, with what it comes to."""
    whole = [model for model in pipeline.trainable if model not in pipeline.bases]
    if not whole:
        return "take a smaller rank, or a smaller model"
    adapters = outlines[whole[0]].adapters(RANK, None)
    less = amount(BYTES["float32"] * adapters), amount(BYTES["float32"] * trained_of(pipeline, outlines, whole[0]))
    return (
        f"train adapters, `--set models.{whole[0]}.lora.rank={RANK} --set models.{whole[0]}.lora.alpha={2 * RANK}`: "
        f"{less[0]} in place of {less[1]} a copy"
    )
