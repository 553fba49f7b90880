"""The functions of the algorithms that a spec may name; what they read and may be told is in the grammar's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .advantages.best import best
from .advantages.distill import distilled
from .advantages.flat import Rewards, Sizes
from .advantages.gae import Lengths, Numbers, generalized
from .advantages.grpo import group_advantage
from .advantages.pairs import best_and_worst
from .advantages.reinforce import returns
from .advantages.rloo import leave_one_out
from .advantages.turns import turn_advantages
from .losses.cispo import cispo
from .losses.clip_cov import clip_cov
from .losses.cpgd import cpgd
from .losses.cross_entropy import cross_entropy
from .losses.dpo import dpo
from .losses.dr_grpo import dr_grpo
from .losses.gmpo import gmpo
from .losses.gpg import gpg
from .losses.grpo import grpo
from .losses.gspo import gspo
from .losses.kl_cov import kl_cov
from .losses.ppo import ppo
from .losses.value_heads.bradley_terry import bradley_terry
from .losses.value_heads.value import value
from .terms.tokens import Sums, Tokens

ADVANTAGES: Mapping[str, Callable[[Rewards, Sizes, Mapping[str, Any]], npt.NDArray[np.float64]]] = {
    "grpo": lambda rewards, sizes, config: group_advantage(rewards, config["scale"], config.get("ddof", 0), sizes),
    "rloo": lambda rewards, sizes, config: leave_one_out(rewards, sizes),
    "pairs": lambda rewards, sizes, config: best_and_worst(rewards, sizes),
    "best": lambda rewards, sizes, config: best(rewards, config["keep"], config["above"]),
}
"""(rewards [groups, samples], their sizes [groups], the stage's config) -> advantages [groups, samples], NaN for one
that is not trained on"""

TOKEN_ADVANTAGES: Mapping[str, Callable[[Numbers, Numbers, Lengths, Mapping[str, Any]], Numbers]] = {
    "gae": lambda rewards, values, lengths, config: generalized(
        rewards, values, lengths, config["gamma"], config["lam"]
    ),
    "distill": lambda rewards, values, lengths, config: distilled(rewards, lengths),
    "reinforce": lambda rewards, values, lengths, config: returns(rewards, lengths, config["gamma"]),
}
"""(rewards [tokens], a critic's values [tokens], tokens of each completion, the stage's config) -> advantages [tokens]

Completions lie one behind the other; values are 0 where there is no critic."""

TURN_ADVANTAGES: Mapping[str, Callable[[Sequence[Numbers], Mapping[str, Any]], list[Numbers]]] = {
    "turns": lambda rewards, config: turn_advantages(rewards, config["gamma"], config["scale"]),
}
"""(of each conversation of a group what its turns earned [turns], the stage's config) -> as many advantages"""

Loss = Callable[[Tokens, Mapping[str, Any]], tuple[Tensor, Sums]]
"""(the tokens of a micro-batch, the loss's settings) -> their part of the step's sum [], and figures"""

LOSSES: Mapping[str, Loss] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "gspo": gspo,
    "cispo": cispo,
    "cpgd": cpgd,
    "gmpo": gmpo,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "gpg": gpg,
    "ppo": ppo,
    "value": value,
    "dpo": dpo,
    "bradley_terry": bradley_terry,
    "cross_entropy": cross_entropy,
}
