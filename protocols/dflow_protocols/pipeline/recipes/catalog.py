"""What each algorithm that a spec may name says of its stages, one entry each. Tables only; expansion.py reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Config: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Role:
    """What a stage is to an algorithm. A stage of the operator `op` plays it, whatever it is called, and so does a
    user's own that `writes` the same output; where none does, one is made with the role's name for its id."""

    op: str
    writes: str = ""
    model: Literal["", "policy", "reference", "teacher", "critic"] = ""


ROLES: Mapping[str, Role] = {
    "pairs": Role("preferences", model="policy"),
    "roll": Role("generate", model="policy"),
    "score": Role("reward", writes="reward"),
    "ref": Role("logprob", model="reference"),
    "teach": Role("logprob", model="teacher"),
    "value": Role("value", model="critic"),
    "adv": Role("advantage", writes="advantage"),
    "learn": Role("train", model="policy"),
    "critic": Role("train", model="critic"),
}
"""By the ids that stages get which are made, in the order in which they stand."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """`source`: where it was published. `config`: by role, what it says of the stage's config; roles that it has beside
    those that every algorithm has are there too, by an empty one if nothing is said."""

    source: str
    config: Mapping[str, Config]
    without: tuple[str, ...] = ()  # roles of ALWAYS that it has no use for

    @property
    def roles(self) -> tuple[str, ...]:
        """Those that it has, in the order in which they stand."""
        every = set(ALWAYS) - set(self.without)
        return tuple(name for name in ROLES if name in every or name in self.config)


ALWAYS = ("roll", "score", "adv", "learn")

RECIPES: Mapping[str, Recipe] = {
    "grpo": Recipe(
        "DeepSeekMath, arXiv 2402.03300",
        {"adv": {"method": "grpo"}, "learn": {"loss": {"kind": "grpo", "clip": [0.2, 0.2], "mean": "sequence"}}},
    ),
    "dr_grpo": Recipe(
        "arXiv 2503.20783",
        {"adv": {"method": "grpo", "scale": "none"}, "learn": {"loss": {"kind": "dr_grpo", "clip": [0.2, 0.2]}}},
    ),
    "dapo": Recipe(
        "arXiv 2503.14476",
        {
            "adv": {"method": "grpo", "drop_flat_groups": True},
            "learn": {"loss": {"kind": "grpo", "clip": [0.2, 0.28], "mean": "token"}},
        },
    ),
    "gspo": Recipe(
        "arXiv 2507.18071",
        {"adv": {"method": "grpo"}, "learn": {"loss": {"kind": "gspo", "clip": [3e-4, 4e-4]}}},
    ),
    "gmpo": Recipe(
        "arXiv 2507.20673",
        {"adv": {"method": "grpo"}, "learn": {"loss": {"kind": "gmpo", "clip": [0.4, 0.4]}}},
    ),
    "cispo": Recipe(
        "MiniMax-M1, arXiv 2506.13585",
        {"adv": {"method": "grpo"}, "learn": {"loss": {"kind": "cispo", "high": 5.0}}},
    ),
    "cpgd": Recipe(
        "arXiv 2505.12504",
        {"adv": {"method": "grpo"}, "learn": {"loss": {"kind": "cpgd", "clip": [0.2, 0.2], "drift": 0.001}}},
    ),
    "clip_cov": Recipe(
        "arXiv 2505.22617",
        {"adv": {"method": "grpo"}, "learn": {"loss": {"kind": "clip_cov", "clip": [0.2, 0.2]}}},
    ),
    "kl_cov": Recipe(
        "arXiv 2505.22617",
        {"adv": {"method": "grpo"}, "learn": {"minibatches": 2, "loss": {"kind": "kl_cov"}}},
    ),
    "gpg": Recipe(
        "arXiv 2504.02546",
        {
            "adv": {"method": "grpo", "scale": "none", "drop_flat_groups": True},
            "learn": {"loss": {"kind": "gpg"}},
        },
    ),
    "rloo": Recipe(
        "arXiv 2402.14740",
        {"adv": {"method": "rloo"}, "learn": {"loss": {"kind": "dr_grpo", "clip": [0.2, 0.2]}}},
    ),
    "ppo": Recipe(
        "arXiv 1707.06347, with GAE, arXiv 1506.02438, and a critic of its own, as InstructGPT, arXiv 2203.02155",
        {
            "value": {},
            "adv": {"method": "gae", "gamma": 1.0, "lam": 0.95},
            "learn": {"epochs": 2, "loss": {"kind": "ppo", "clip": [0.2, 0.2]}},
            "critic": {"loss": {"kind": "value", "value_clip": 0.2}},
        },
    ),
    "reinforce_pp": Recipe(
        "REINFORCE++-baseline, arXiv 2501.03262",
        {
            "adv": {"method": "grpo", "scale": "none", "whiten": True},
            "learn": {"loss": {"kind": "grpo", "clip": [0.2, 0.2], "mean": "token"}},
        },
    ),
    "rft": Recipe(
        "rejection-sampling fine-tuning, arXiv 2308.01825",
        {"adv": {"method": "best", "above": 0.0}, "learn": {"loss": {"kind": "gpg"}}},
    ),
    "online_dpo": Recipe(
        "arXiv 2402.04792, with the loss of DPO, arXiv 2305.18290",
        {"ref": {}, "adv": {"method": "pairs"}, "learn": {"loss": {"kind": "dpo", "beta": 0.1}}},
    ),
    "dpo": Recipe(
        "arXiv 2305.18290",
        {"pairs": {}, "ref": {}, "learn": {"loss": {"kind": "dpo", "beta": 0.1}}},
        without=("roll", "score", "adv"),
    ),
    "distill": Recipe(
        "on-policy distillation: GKD, arXiv 2306.13649; Thinking Machines Lab, 2025",
        {"teach": {}, "adv": {"method": "distill"}, "learn": {"loss": {"kind": "ppo", "clip": [0.2, 0.2]}}},
        without=("score",),
    ),
    "reinforce_pp_no_baseline": Recipe(
        "REINFORCE++, arXiv 2501.03262",
        {
            "ref": {},
            "adv": {"method": "reinforce", "gamma": 1.0, "kl": 0.01, "kl_kind": "k1", "whiten": True},
            "learn": {"loss": {"kind": "ppo", "clip": [0.2, 0.2]}},
        },
    ),
}

OPTIMIZER: Config = {"adamw": {"lr": 1e-6}}  # of a policy whose stage names none: the default of TRL and of verl
OF_THE_SPEC = ("rewards",)  # of an advantage's config: what is compared, not how
OF_THE_POLICY = ("loss", "correction")  # of its training's config: all else a critic's training has from it
