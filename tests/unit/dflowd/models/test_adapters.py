"""Adapters of a frozen model: peft, which is no part of the engine, is the witness of what they compute."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dflowd.jobs.failures import UserError
from dflowd.models.policy import BASE, Policy
from dflowd.models.proof import require_own_numbers
from tests.support import zoo
from tests.support.repository import EXAMPLES

DRAWN = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
LORA = {"rank": 4, "alpha": 8.0, "targets": None, "dropout": 0.0}
TOKENS = torch.tensor([[3, 5, 7, 9, 11, 4]])
CPU = torch.device("cpu")


def opened(source: Mapping[str, Any] = DRAWN, base: Path = EXAMPLES, seed: int = 5, **lora: Any) -> Policy:
    return Policy("policy", {**source, "lora": LORA | lora}, base, seed)


def filled(policy: Policy) -> Policy:
    """With adapters that are not 0, as after some steps."""
    vector = np.random.default_rng(3).normal(0, 0.3, policy.parameters.size).astype(np.float32)
    policy.parameters.load(("filled",), memoryview(vector.tobytes()))
    return policy


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=TOKENS).logits
    return found


def bytes_of(model: Any) -> dict[str, bytes]:
    return {name: each.detach().numpy().tobytes() for name, each in model.named_parameters()}


def test_a_model_with_fresh_adapters_is_its_base_and_with_trained_ones_another() -> None:
    """So that a run begins where its base is, and a version is what was trained of it."""
    base = Policy("policy", DRAWN, EXAMPLES, 5)
    policy = opened()
    before = bytes_of(policy.model)
    assert before == bytes_of(base.model)
    assert torch.equal(logits(policy.model), logits(base.model))
    filled(policy)
    assert (logits(policy.model) - logits(base.model)).abs().max() > 0.01
    assert bytes_of(policy.model) == before
    assert policy.parameters.size < base.parameters.size / 5


def test_the_base_is_there_as_a_model_of_its_own_in_the_same_memory() -> None:
    """A reference that the policy came from costs nothing, and never sees what was trained."""
    policy = filled(opened())
    reference = policy.without_adapters("reference")
    sight = causal(TOKENS)
    with torch.inference_mode():
        own = Policy("policy", DRAWN, EXAMPLES, 5).hidden(TOKENS, sight)
        assert torch.equal(reference.hidden(TOKENS, sight), own)
        assert not torch.equal(policy.hidden(TOKENS, sight), own)
    assert reference.model is policy.model
    reference.parameters.unload()
    assert (logits(policy.model)).isfinite().all()


def test_an_adapter_that_reaches_no_weight_is_told() -> None:
    """Of two layers with one weight, the second has none that a whole model would keep: it would be left out."""
    policy = filled(opened())
    layer = policy.model.model.layers[0].self_attn
    layer.k_proj.weight = layer.v_proj.weight
    with pytest.raises(UserError, match=r"^models\.policy\.lora: layer `model\.layers\.0\.self_attn\.v_proj` has no"):
        policy.merge()


def causal(tokens: torch.Tensor) -> Any:
    from dflowd.models.attention import Sight

    rows, length = tokens.shape
    seen = torch.ones((length, length), dtype=torch.bool).tril().expand(rows, length, length)
    return Sight(torch.arange(length).expand(rows, length), seen)


def test_only_adapters_get_a_gradient() -> None:
    """The base is nobody's to change, and its gradient would be as large as it is."""
    policy = filled(opened())
    total = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.begin_gradient(total)
    torch.autograd.backward(policy.logits(policy.hidden(TOKENS, causal(TOKENS))).square().mean())
    assert all(each.grad is None for each in policy.model.parameters())
    policy.parameters.end_gradient()
    assert np.count_nonzero(total) == policy.parameters.size


def in_peft(base: Any, folder: Path) -> Any:
    """By the library whose format it is, as a user would."""
    pytest.importorskip("peft", reason="in the extra `dev`")
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(base, folder).eval()


@pytest.mark.parametrize("name", ["Llama", "Qwen2, tied", "GPT-2", "Qwen3-MoE", "Gemma"])
def test_what_is_saved_is_what_peft_opens_and_merges(name: str, tmp_path: Path) -> None:
    """Adapters are for others to serve: the same logits there, and from the whole model that both make of it."""
    from transformers import AutoModelForCausalLM

    zoo.write(zoo.ARCHITECTURES[name], tmp_path / "model")
    policy = filled(opened({"path": "model"}, tmp_path))
    require_own_numbers(policy)
    (tmp_path / "saved").mkdir()
    policy.save(tmp_path / "saved")
    ours = logits(policy.model)
    theirs = in_peft(AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32), tmp_path / "saved")
    assert torch.allclose(logits(theirs), ours, rtol=0, atol=1e-6)
    policy.merge()
    (tmp_path / "whole").mkdir()
    policy.save(tmp_path / "whole")
    whole: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    assert torch.allclose(logits(whole), ours, rtol=0, atol=1e-5)
    merged = dict(theirs.merge_and_unload().named_parameters())
    own = dict(whole.named_parameters())
    assert merged.keys() == own.keys()
    assert all(torch.allclose(own[name], each, rtol=0, atol=1e-6) for name, each in merged.items())


def test_a_base_that_was_drawn_is_saved_with_its_adapters(tmp_path: Path) -> None:
    """It lies in no folder that their user could name."""
    policy = filled(opened())
    policy.save(tmp_path)
    again = filled(opened({"path": BASE}, tmp_path))
    assert again.base_id == policy.base_id
    assert torch.equal(logits(again.model), logits(policy.model))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == BASE


def test_a_base_is_known_by_its_weights() -> None:
    """Adapters that were trained on one base are noise on another."""
    assert opened(seed=5).base_id == opened(seed=5, rank=2).base_id
    assert opened(seed=5).base_id != opened(seed=6).base_id
    assert Policy("policy", DRAWN, EXAMPLES, 5).base_id == b""


def test_a_base_that_lies_in_bfloat16_is_mapped_to_compute_in_it(tmp_path: Path) -> None:
    """Engines of a host share its file, of two bytes a parameter; rounding float32 copies gave each one of its own."""
    folder = zoo.write(zoo.ON_DISK["in bfloat16"], tmp_path / "model")
    policy = filled(opened({"path": "model"}, tmp_path))
    exact = logits(policy.model)
    policy.compute_in(torch.bfloat16)
    kinds = {each.dtype for each in policy.model.parameters()}, policy.parameters.size
    assert kinds == ({torch.bfloat16}, opened({"path": "model"}, tmp_path).parameters.size)
    assert 0 < (logits(policy.model) - exact).abs().max() < 0.1 * exact.std()
    start, end = mapping_of(folder / "model.safetensors")
    assert all(start <= each.data_ptr() < end for each in policy.model.parameters())


def mapping_of(file: Path) -> tuple[int, int]:
    """Where the whole of a file lies in this process' memory."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    starts = [int(line[0].partition("-")[0], 16) for line in lines]
    ends = [int(line[0].partition("-")[2], 16) for line in lines]
    return min(starts), max(ends)


def test_targets_choose_the_layers_by_the_ends_of_their_names() -> None:
    """As peft takes them; one that the model has not is the user's mistake, told with those that it has."""
    few = opened(targets=["q_proj", "v_proj"])
    assert 0 < few.parameters.size < opened().parameters.size / 2
    with pytest.raises(UserError, match=r"models\.policy\.lora\.targets: .*`q_pro`.*it has down_proj, gate_proj, k_"):
        opened(targets=["q_pro"])
    with pytest.raises(UserError, match="no linear layer `lm_head` below its head"):
        opened(targets=["lm_head"])


def test_an_adapter_that_no_pass_comes_by_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that reads a layer's weight past the layer would be sampled and trained without it, in silence."""
    policy = opened()

    def forward(mlp: Any, x: torch.Tensor) -> Any:
        return mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * torch.nn.functional.linear(x, mlp.up_proj.weight))

    monkeypatch.setattr(type(policy.model.model.layers[0].mlp), "forward", forward)
    with pytest.raises(UserError, match=r"models\.policy\.lora: .*past its layer `model\.layers\.0\.mlp\.up_proj`"):
        require_own_numbers(policy)
