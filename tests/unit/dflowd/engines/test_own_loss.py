"""A loss of the user's own: called as ours are, and told by its line where it does not give what it has to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.algorithms.losses.gpg import gpg
from dflowd.algorithms.terms.tokens import Tokens
from dflowd.engines.own_code import own_loss_of
from dflowd.jobs.failures import UserError
from dflowd.jobs.job import Job
from dflowd.training.gather import objective_of
from dflowd.workers.user_code import forget_user_code

PLAIN = """
def loss(tokens, scale=1.0):
    each = tokens.logp * tokens["advantage"] * tokens.weight
    return -scale * each.sum(), {"seen": len(each)}
"""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    forget_user_code()


def called(folder: Path, text: str, **args: Any) -> Any:
    """The loss of a file with this text, on three tokens."""
    (folder / "mine.py").write_text(text)
    pipeline = Pipeline(
        name="mine",
        steps=1,
        models={"policy": {"path": "model/"}},
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config={"data": "words", "prompts": 1, "max_tokens": 2}),
            Stage("score", "reward"),
            Stage("adv", "advantage"),
            Stage(
                "learn",
                "train",
                "policy",
                config={
                    "leaves": 1,
                    "loss": {"kind": "mine.py:loss", "args": args},
                    "optimizer": {"adamw": {"lr": 1e-3}},
                },
            ),
        ],
    )
    stage = pipeline.stage("learn")
    job = SimpleNamespace(pipeline=pipeline, code=folder)
    loss = objective_of(pipeline, stage, own_loss_of(cast("Job", job), stage)).own
    assert loss is not None
    return loss(tokens(), stage.config["loss"])


def tokens() -> Tokens:
    logp = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    return Tokens(logp, torch.full((3,), 3.0), {"advantage": torch.tensor([1.0, -1.0, 0.5])})


def test_it_is_given_the_tokens_that_ours_are_given_and_its_settings_by_name(tmp_path: Path) -> None:
    """What it tells beside the loss is a sum that people read as a mean."""
    loss, figures = called(tmp_path, PLAIN, scale=2.0)
    assert loss.item() == 2 * gpg(tokens(), {"kl": 0.0})[0].item()
    assert figures == {"own_seen": 3}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def loss(tokens):\n    return 1 / 0\n", r"ZeroDivisionError: division by zero \(mine.py:2\)"),
        ("def loss(tokens):\n    return 1.0\n", "gave a float; it has to give the sum over its tokens"),
        ("def loss(tokens):\n    return tokens.logp\n", r"gave a tensor of shape \[3\]"),
        ("def loss(tokens):\n    return tokens.logp.detach().sum()\n", "that follows from `tokens.logp`"),
        ("def loss(tokens):\n    return tokens.logp.sum(), {'a b': 1}\n", "gave figures by `a b`"),
        ("def loss(tokens):\n    return tokens.logp.sum(), {'a': tokens.logp}\n", "gave a `a` that is no number"),
        ("def loss(tokens):\n    return tokens['gap'].sum()\n", "no column `gap`"),
        ("def lost(tokens):\n    pass\n", "the module has no function `loss`"),
    ],
)
def test_what_goes_wrong_in_it_names_the_stage(tmp_path: Path, text: str, error: str) -> None:
    """It ends the run, and who wrote the file is told what to mend."""
    with pytest.raises(UserError, match=error) as told:
        called(tmp_path, text)
    assert told.value.stage == "learn"
