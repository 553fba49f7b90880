"""What the stages of one translation share: the pipeline, its settings, the draft, and names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .draft import Draft
from .kinds import Kind, kind_of
from .siirl.settings import Settings
from .siirl.workflow import Node, Workflow

ACTOR, CRITIC = "actor_rollout_ref", "critic"  # siiRL's branches of settings


@dataclass(slots=True)
class Context:
    workflow: Workflow
    settings: Settings
    draft: Draft
    kinds: Mapping[str, Kind] = field(init=False)  # by node
    made: dict[str, dict[str, Any]] = field(default_factory=dict)  # stages, by node
    _ids: dict[str, str] = field(default_factory=dict)  # by node

    def __post_init__(self) -> None:
        self.kinds = {node.id: kind_of(node) for node in self.workflow.nodes}

    def has(self, kind: Kind) -> bool:
        return kind in self.kinds.values()

    def stages(self, kind: Kind, agent: int | None = None) -> list[dict[str, Any]]:
        """What nodes of a kind became, of all agents or of one."""
        found = [node for node in self.workflow.nodes if self.kinds[node.id] is kind and agent in (None, node.agent)]
        return [self.made[node.id] for node in found if node.id in self.made]

    def keep(self, node: Node, stage: dict[str, Any]) -> None:
        """What a node became."""
        self.made[node.id] = stage

    def name_reads(self, node: Node, reads: list[str]) -> None:
        """What the stage of a node reads, where that is not the nearest before it."""
        self.made[node.id]["reads"] = reads

    def stage_id(self, node: Node) -> str:
        """The node's id, as far as a stage may have it."""
        if node.id not in self._ids:
            self._ids[node.id] = free_id(node.id, self._ids.values())
        return self._ids[node.id]

    def model(self, role: str, agent: int) -> str:
        """`policy`, `reference` or `critic`; with its agent's number where there are several."""
        return role if len(self.workflow.agents) == 1 else f"{role}_{agent}"

    def setting(self, place: str, settings: Settings, key: str, default: Any) -> Any:
        """A setting; where siiRL's own default stands for it, that is remarked at `place`."""
        if not settings.has(key):
            self.draft.remark(place, f"siiRL's default: {key}={default}")
        return settings.get(key, default)

    def number(self, place: str, settings: Settings, key: str, default: float) -> float:
        """As `setting`, of one that is a number."""
        self.setting(place, settings, key, default)
        return settings.number(key, default)

    @property
    def is_served(self) -> bool:
        """Whether another engine samples than trains."""
        return self.settings.get(f"{ACTOR}.rollout.name") in ("vllm", "sglang")


def free_id(wanted: str, taken: Any) -> str:
    """A stage's id that nobody has: small letters, digits and _, 32 at most."""
    plain = re.sub(r"[^a-z0-9_]+", "_", wanted.lower()).lstrip("_0123456789")[:32] or "stage"
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain[:29]}_{number}", number + 1
    return found
