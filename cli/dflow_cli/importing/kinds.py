"""What a node of siiRL does: told by the function that it calls, else by its type and role."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from .siirl.workflow import Node


class Kind(Enum):
    ROLLOUT = "rollout"
    REWARD = "reward"
    DYNAMIC_SAMPLING = "dynamic sampling"
    ADVANTAGE = "advantage"
    OLD_LOGPROB = "log-probabilities of the policy"
    REFERENCE = "log-probabilities of a reference"
    VALUE = "values"
    ACTOR = "training of the policy"
    CRITIC = "training of a critic"
    PLUMBING = "data and barriers"
    EMBODIED = "embodied"
    OWN = "a function of one's own"


FUNCTIONS: Mapping[str, Kind] = {
    "DAGWorker.generate": Kind.ROLLOUT,
    "DAGWorker.compute_reward": Kind.REWARD,
    "DAGWorker.compute_advantage": Kind.ADVANTAGE,
    "DAGWorker.compute_old_log_prob": Kind.OLD_LOGPROB,
    "DAGWorker.compute_ref_log_prob": Kind.REFERENCE,
    "DAGWorker.compute_value": Kind.VALUE,
    "DAGWorker.train_actor": Kind.ACTOR,
    "DAGWorker.train_critic": Kind.CRITIC,
    "dapo.dynamic_sampling": Kind.DYNAMIC_SAMPLING,
    "embodied.embodied_local_rank_sampling": Kind.EMBODIED,
}
"""By how siiRL's own functions end."""

_ROLES: Mapping[tuple[str, bool], Kind] = {
    ("ROLLOUT", False): Kind.ROLLOUT,
    ("REWARD", False): Kind.REWARD,
    ("ADVANTAGE", False): Kind.ADVANTAGE,
    ("DYNAMIC_SAMPLING", False): Kind.DYNAMIC_SAMPLING,
    ("ACTOR", True): Kind.OLD_LOGPROB,
    ("ACTOR", False): Kind.ACTOR,
    ("REFERENCE", True): Kind.REFERENCE,
    ("REFERENCE", False): Kind.REFERENCE,
    ("CRITIC", True): Kind.VALUE,
    ("CRITIC", False): Kind.CRITIC,
}
"""By role, and whether the node only computes forward."""

_TYPES: Mapping[str, Kind] = {
    "DATA_LOAD": Kind.PLUMBING,
    "PUT_TO_BUFFER": Kind.PLUMBING,
    "GET_FROM_BUFFER": Kind.PLUMBING,
    "BARRIER_SYNC": Kind.PLUMBING,
    "ENV_INTERACT": Kind.EMBODIED,
}


def kind_of(node: Node) -> Kind:
    if node.func and not node.func.startswith("siirl."):
        return Kind.OWN
    named = next((kind for end, kind in FUNCTIONS.items() if node.func.replace(":", ".").endswith(f".{end}")), None)
    by_role = _ROLES.get((node.role, node.forward_only)) if not node.func or node.role != "DEFAULT" else None
    return named or _TYPES.get(node.type) or by_role or Kind.OWN
