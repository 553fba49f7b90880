"""The pipelines that siiRL comes with, which a run has that names no workflow of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORKER = "siirl.dag_worker.dagworker:DAGWorker."
_FILTERS = "siirl.user_interface.filter_interface."

# A node's function -> what siiRL writes of it elsewhere: its usual name, type and role, and whether it only computes.
_STAGES: Mapping[str, tuple[str, str, str, bool]] = {
    f"{_WORKER}generate": ("rollout_actor", "MODEL_INFERENCE", "ROLLOUT", False),
    f"{_WORKER}compute_reward": ("function_reward", "COMPUTE", "REWARD", False),
    f"{_FILTERS}dapo.dynamic_sampling": ("dynamic_sampling", "COMPUTE", "DYNAMIC_SAMPLING", False),
    f"{_FILTERS}embodied.embodied_local_rank_sampling": ("embodied_sampling", "COMPUTE", "DYNAMIC_SAMPLING", False),
    f"{_WORKER}compute_value": ("compute_value", "MODEL_TRAIN", "CRITIC", True),
    f"{_WORKER}compute_advantage": ("calculate_advantages", "COMPUTE", "ADVANTAGE", False),
    f"{_WORKER}compute_old_log_prob": ("actor_old_log_prob", "MODEL_TRAIN", "ACTOR", True),
    f"{_WORKER}compute_ref_log_prob": ("reference_log_prob", "MODEL_TRAIN", "REFERENCE", False),
    f"{_WORKER}train_actor": ("actor_train", "MODEL_TRAIN", "ACTOR", False),
    f"{_WORKER}train_critic": ("critic_train", "MODEL_TRAIN", "CRITIC", False),
}


def _chain(*functions: str) -> list[dict[str, Any]]:
    """Nodes each of which waits for the one before, as siiRL's own pipelines are."""
    nodes: list[dict[str, Any]] = []
    for end in functions:
        func = next(name for name in _STAGES if name.endswith(f".{end}"))
        name, kind, role, forward_only = _STAGES[func]
        needs = [nodes[-1]["id"]] if nodes else []
        node = {"id": name, "func": func, "needs": needs, "type": kind, "role": role, "forward_only": forward_only}
        nodes.append(node)
    return nodes


_SCORED = ("compute_advantage", "compute_old_log_prob", "compute_ref_log_prob", "train_actor")

BUILTIN: Mapping[str, tuple[str, list[dict[str, Any]]]] = {
    "grpo_pipeline": ("grpo_training_pipeline", _chain("generate", "compute_reward", *_SCORED)),
    "ppo_pipeline": (
        "ppo_training_pipeline",
        _chain("generate", "compute_reward", "compute_value", *_SCORED, "train_critic"),
    ),
    "dapo_pipeline": ("dapo_training_pipeline", _chain("generate", "compute_reward", "dynamic_sampling", *_SCORED)),
    "embodied_srpo_pipeline": (
        "embodied_grpo_training_pipeline",
        _chain("generate", "embodied_local_rank_sampling", "compute_reward", *_SCORED),
    ),
}
"""By siiRL's name of the function that builds it: the graph's name, and its nodes."""
