"""A base and its adapters are whole weights without a model of them: the policy that is trained is the witness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dflowd.models.description import Description
from dflowd.models.policy import Policy
from dflowd.models.served import frozen
from dflowd.models.served.frozen import Frozen
from tests.support import zoo
from tests.support.repository import EXAMPLES

DRAWN = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
LORA = {"lora": {"rank": 4, "alpha": 8.0, "targets": None, "dropout": 0.0}}
CPU = torch.device("cpu")


def whole(source: Mapping[str, Any], base: Path) -> tuple[Frozen, dict[str, torch.Tensor]]:
    """With adapters that are not 0, as after some steps."""
    found = Frozen(Description("policy", source, base), 5, CPU)
    found.parameters.load(("filled",), _filled(found.parameters.size))
    return found, dict(found.whole())


def merged(source: Mapping[str, Any], base: Path) -> tuple[Policy, dict[str, torch.Tensor]]:
    policy = Policy("policy", source, base, 5)
    policy.parameters.load(("filled",), _filled(policy.parameters.size))
    policy.merge()
    return policy, {name: each.detach() for name, each in policy.model.named_parameters()}


def _filled(size: int) -> memoryview:
    return memoryview(np.random.default_rng(3).normal(0, 0.3, size).astype(np.float32).tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in bfloat16, in several files, as published ones lie."""
    policy = Policy("policy", DRAWN, EXAMPLES, 5)
    policy.model.to(torch.bfloat16).save_pretrained(tmp_path / "model", max_shard_size="60KB")
    policy.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_folders_weights_are_those_of_the_model_and_no_model_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second copy beside that of who is given them would be as large as the model."""
    source = {"path": "model"} | LORA
    policy, wanted = merged(source, folder)
    monkeypatch.setattr(frozen, "Policy", None)
    found, weights = whole(source, folder)
    assert same(weights, wanted)
    assert found.base_id == policy.base_id
    assert len(list((folder / "model").glob("*.safetensors"))) > 1


def test_a_base_that_is_drawn_is_the_one_that_is_trained_beside() -> None:
    policy, wanted = merged(DRAWN | LORA, EXAMPLES)
    found, weights = whole(DRAWN | LORA, EXAMPLES)
    assert same(weights, wanted)
    assert found.base_id == policy.base_id
    assert not same(weights, dict(Policy("policy", DRAWN, EXAMPLES, 5).model.named_parameters()))


def test_names_that_are_not_the_models_are_left_to_the_library(folder: Path) -> None:
    """Older folders leave a prefix out, or put experts together otherwise."""
    for file in (folder / "model").glob("*.safetensors"):
        save_file({name.removeprefix("model."): each for name, each in load_file(file).items()}, file, {"format": "pt"})
    index = folder / "model" / frozen.INDEX
    index.write_text(index.read_text().replace('"model.', '"'))
    assert same(whole({"path": "model"} | LORA, folder)[1], merged({"path": "model"} | LORA, folder)[1])


def test_a_layer_that_keeps_its_weight_turned_gets_its_adapter_turned(tmp_path: Path) -> None:
    """As GPT-2's do."""
    zoo.write(zoo.ARCHITECTURES["GPT-2"], tmp_path / "model")
    assert same(whole({"path": "model"} | LORA, tmp_path)[1], merged({"path": "model"} | LORA, tmp_path)[1])


def test_a_model_that_is_not_trained_has_the_weights_of_its_folder(folder: Path) -> None:
    found = Frozen(Description("judge", {"path": "model"}, folder), 5, CPU)
    assert found.parameters.size == 0
    model = Policy("judge", {"path": "model"}, folder, 5).model
    assert same({name: each.float() for name, each in found.whole()}, dict(model.named_parameters()))
