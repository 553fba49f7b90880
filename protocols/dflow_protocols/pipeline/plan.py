"""plan(): what a step consists of, derived by every node alike from the spec and what was sealed before.

Pure, and the only place where a pipeline becomes tasks. Nothing here knows who runs them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages that run one after the other on each partition, in one engine call where nothing was done before."""

    stages: tuple[str, ...]  # stage ids, in order; the first one names the chain
    partitions: int
    groups: int  # prompts of the whole step, dealt to partitions in contiguous runs
    models: tuple[str, ...]  # models whose parameters some stage reads
    sealed_in: str  # `manifest`: training waits for it; `update`: only the step's end does (evaluate)


@dataclass(frozen=True, slots=True)
class Training:
    """The step's optimizer update: leaves read what the chains' stages made."""

    stage: str
    model: str
    leaves: int  # V, a power of two
    reads: tuple[str, ...]  # "stage.output" of each partition that a leaf needs
    groups_from: str  # the stage whose records' `groups` say what is trained on
    divisor: str  # `tokens` or `samples`
    update: int  # how many updates this stage made before this step
    updates: int  # how many it makes in the whole run
    keep_optimizer: bool  # whether the stage is active in a later step


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Step `step` of the run. The one after the last (`step == steps`) has only what is evaluated on the final
    version; a step may have no training at all, and then hands its state on unchanged."""

    step: int
    chains: tuple[Chain, ...]
    training: Training | None
