"""Gradient checkpointing: less memory, and not a bit of another gradient."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface

from dflowd.jobs.counter_random import stream
from dflowd.jobs.failures import UserError
from dflowd.models.policy import Policy
from dflowd.training.leaf import LeafData, Objective, add_gradient
from tests.support import zoo


def gradient(policy: Policy) -> Any:
    drawn = (np.abs(stream(b"in line!", 60)) * policy.vocabulary).astype(np.int32)
    data = LeafData(prompts=[drawn[:19], drawn[19:23]], owners=[0, 0, 1], completions=np.split(drawn[30:], (11, 20)))
    total = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.begin_gradient(total)
    add_gradient(policy, data, Objective("cross_entropy", {}, "tokens", 40), lambda: None)
    policy.parameters.end_gradient()
    return total


def opened(name: str, folder: Path) -> Policy:
    zoo.write(zoo.ARCHITECTURES[name], folder / "model")
    return Policy("policy", {"path": "model"}, folder, 0)


@pytest.mark.parametrize("in_line", [False, True])
@pytest.mark.parametrize("name", ["Gemma 3, windows in half of its layers", "OPT", "Mixtral"])
def test_activations_made_again_are_the_same(
    name: str, in_line: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers with dropout in their config included, which would draw another time."""
    policy = opened(name, tmp_path)
    policy.lay_out(in_line)
    calls: Counter[bool] = Counter()
    attend: Any = AttentionInterface._global_mapping["sdpa"]
    is_again = False

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[is_again] += 1
        return attend(*args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", counting)
    kept = gradient(policy)
    policy.recompute(True)
    is_again = True
    assert np.array_equal(gradient(policy), kept)
    assert calls[True] == 2 * calls[False] > 0
    policy.recompute(None)  # on a processor memory is not what is short
    gradient(policy)
    assert calls[True] == 3 * calls[False]


def test_an_architecture_without_such_layers_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, it must not be left out in silence; where the device would like it, it is."""
    monkeypatch.setattr("dflowd.models.recompute.GradientCheckpointingLayer", torch.nn.Bilinear)
    policy = opened("Llama", tmp_path)
    with pytest.raises(UserError, match=r"type `llama` has no layers.*gradient_checkpointing"):
        policy.recompute(True)
    policy.recompute(None)
