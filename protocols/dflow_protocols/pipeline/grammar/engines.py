"""The engines that a spec may name, and what each of them does: their code lies with the daemon's engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROLLOUTS, GRADIENTS, STATES = "rollouts", "gradients", "states"
EVERYTHING = frozenset({ROLLOUTS, GRADIENTS, STATES})


@dataclass(frozen=True, slots=True)
class EngineKind:
    """`does`: `rollouts` (sampling and scoring), `gradients` (of leaves), `states` (reduction, update, checkpoints)."""

    does: frozenset[str] = EVERYTHING
    opens_files: bool = True  # models, data and functions that the spec names


ENGINES: Mapping[str, EngineKind] = {
    "torch": EngineKind(),
    "emulated": EngineKind(opens_files=False),
}
