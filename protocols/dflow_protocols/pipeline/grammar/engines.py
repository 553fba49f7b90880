"""The engines that a spec may name, and what each of them does: their code lies with the daemon's engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROLLOUTS, GRADIENTS, STATES = "rollouts", "gradients", "states"
EVERYTHING = frozenset({ROLLOUTS, GRADIENTS, STATES})

EXACT, REPLAY, FAST = "exact", "replay", "fast"
REPRODUCIBILITY = (EXACT, REPLAY, FAST)
"""What the weights are a function of: the spec; the spec and the data that were sealed; nothing that is claimed."""

DEVICES = ("cpu", "gpu")


@dataclass(frozen=True, slots=True)
class EngineKind:
    """`does`: `rollouts` (sampling and scoring), `gradients` (of leaves), `states` (reduction, update, checkpoints)."""

    does: frozenset[str] = EVERYTHING
    opens_files: bool = True  # models, data and functions that the spec names
    samples_only: bool = False  # of rollouts it does the stages that sample, and no others
    rest: str = ""  # the engine that does what this one leaves, where a pipeline names this one at its top
    is_optional: bool = False  # not every node has it: one that does says so, by its name among the node's roles
    has_nucleus: bool = True  # it tells the probability of a token within `top_p`'s set beside the full vocabulary's
    claims: str = EXACT  # what it promises where the spec does not say
    heads_on_cpu: tuple[int, ...] = ()  # values that an attention head may have there; none: any
    exact_on: tuple[str, ...] = DEVICES  # kinds of nodes on which equal work gives equal bytes, if asked for
    batch: int = 1  # completions that it samples together, also those of several partitions


ENGINES: Mapping[str, EngineKind] = {
    "torch": EngineKind(),
    "vllm": EngineKind(
        frozenset({ROLLOUTS}),
        samples_only=True,
        rest="torch",
        is_optional=True,
        has_nucleus=False,
        claims=REPLAY,
        heads_on_cpu=(32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512),
        exact_on=("cpu",),
        batch=256,
    ),
    "emulated": EngineKind(opens_files=False),
}
