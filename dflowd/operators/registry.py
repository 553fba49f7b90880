"""Which function does a stage's work, by its operator: the one table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dflowd.algorithms.registry import TOKEN_ADVANTAGES, TURN_ADVANTAGES

from .advantage import advantage
from .answers import preferences, sft
from .custom import custom
from .evaluate import evaluate
from .filter import filter_groups
from .generate import generate, go_on
from .partition import Output, Partition
from .reading import logprob, reward_model, value
from .reply import reply
from .reward import reward
from .token_advantage import token_advantage, turn_advantage

Operator = Callable[[Partition], Output | list[Output]]

OPERATORS: Mapping[str, Operator] = {
    "generate": generate,
    "preferences": preferences,
    "continue": go_on,
    "reply": reply,
    "reward": reward,
    "reward_model": reward_model,
    "logprob": logprob,
    "value": value,
    "filter": filter_groups,
    "advantage": advantage,
    "sft": sft,
    "evaluate": evaluate,
}


def operate(partition: Partition, operators: Mapping[str, Operator] = OPERATORS) -> list[Output]:
    """What the partition's stage makes of it: an Output for each name that it writes, in its order.
    `operators`: an engine that samples by itself has its own.

    Raises UserError where the run's own code, data or model cannot be worked with.
    """
    method = partition.stage.config["method"] if partition.stage.operator.methods else ""
    if method in TOKEN_ADVANTAGES:
        return token_advantage(partition)
    if method in TURN_ADVANTAGES:
        return turn_advantage(partition)
    function = operators.get(partition.stage.op)
    made = custom(partition) if function is None else function(partition)
    return made if isinstance(made, list) else [made]
