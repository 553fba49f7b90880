"""What a stage of the user's own is given: a row a completion, with the numbers that the stage reads.

A number is there by `stage.output`, and by its output's name alone where no other one is called so. An output that has
a number for each token is a list.
"""

from __future__ import annotations

from collections.abc import Sequence

from .scoring import BESIDE, EACH

SAID = ("token_ids", "logprobs", "turn")
"""Of a completion, by token: which one, its log-probability to the sampler, and the model's turn that it belongs to,
from 0; -1 and a log-probability of 0 where an environment said it."""
ROW = (*EACH, "group", *BESIDE, *SAID)  # what every row has
RAGGED = ("rollout", "logprob", "value", "batch", "evaluation")  # outputs that are more than a number a completion


def row_names(reads: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The names in a row of each "stage.output" that a stage reads."""
    outputs = [read.partition(".")[2] for read in reads]
    return {
        read: (read, output) if outputs.count(output) == 1 else (read,)
        for read, output in zip(reads, outputs, strict=True)
    }
