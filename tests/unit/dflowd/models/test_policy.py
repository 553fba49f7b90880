"""A model in an engine takes its parameters from where they lie."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dflowd.jobs.failures import UserError
from dflowd.models.parameters import Vector
from dflowd.models.policy import Policy
from tests.support.repository import EXAMPLES


@pytest.fixture
def policy() -> Policy:
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    return Policy("policy", config, EXAMPLES, 5)


def values_of(policy: Policy) -> Vector:
    vector = np.empty(policy.parameters.size, np.float32)
    policy.parameters.write(vector)
    return vector


def test_parameters_are_the_shards_own_memory_for_as_long_as_a_call_lasts(policy: Policy) -> None:
    """An engine must not hold a model twice; and once its call is over the memory is the store's to write to."""
    wanted = 2 * values_of(policy)
    with mmap.mmap(-1, wanted.nbytes) as room:
        room.write(wanted.tobytes())
        policy.parameters.load(("a",), memoryview(room).toreadonly())
        assert np.array_equal(values_of(policy), wanted)
        inside = np.frombuffer(room, np.float32)
        assert all(np.shares_memory(each.detach().numpy(), inside) for each in policy.model.parameters())
        policy.parameters.unload()
        del inside
    # leaving the block closes the map, which fails while anything still looks into it


def test_memory_that_is_not_aligned_is_copied(policy: Policy) -> None:
    """Kernels may round otherwise at other addresses, and weights must not depend on where a buffer happened to lie."""
    wanted = values_of(policy)
    buffer = np.zeros(wanted.nbytes + 64, np.uint8)
    start = 4 + -(buffer.ctypes.data) % 64
    buffer[start : start + wanted.nbytes] = wanted.view(np.uint8)
    view = buffer.data[start : start + wanted.nbytes]
    policy.parameters.load(("b",), view)
    assert np.array_equal(values_of(policy), wanted)
    assert not any(np.shares_memory(each.detach().numpy(), buffer) for each in policy.model.parameters())


def test_bfloat16_is_a_rounded_copy_in_one_place(policy: Policy) -> None:
    """The master stays float32 in its shard; each version is rounded into the memory of the one before."""
    wanted = values_of(policy)
    policy.compute_in(torch.bfloat16)
    policy.parameters.load(("a",), wanted.data.cast("B"))
    places = [each.data_ptr() for each in policy.model.parameters()]
    policy.parameters.unload()
    policy.parameters.load(("b",), (3 * wanted).data.cast("B"))
    assert [each.data_ptr() for each in policy.model.parameters()] == places
    rounded = torch.from_numpy(3 * wanted).bfloat16().float().numpy()
    assert np.array_equal(values_of(policy), rounded)


def test_gradients_of_bfloat16_passes_add_up_in_float32(policy: Policy) -> None:
    """A sum in bfloat16 stops growing after 256 equal passes."""
    policy.compute_in(torch.bfloat16)
    total = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.begin_gradient(total)
    head = policy.model.get_output_embeddings().weight
    for _ in range(1000):
        head.sum().backward()
    policy.parameters.end_gradient()
    assert set(np.unique(total)) == {0.0, 1000.0}
    head.requires_grad_(True)
    head.sum().backward()
    assert set(np.unique(total)) == {0.0, 1000.0}  # passes after the end are nobody's


def test_a_shard_of_another_model_is_refused(policy: Policy) -> None:
    """Its numbers would be taken for weights."""
    with pytest.raises(ValueError, match="values for the"):
        policy.parameters.load(("c",), memoryview(bytes(16)))


@pytest.fixture
def folder(tmp_path: Path, policy: Policy) -> Path:
    """A model's folder as others publish it."""
    policy.save(tmp_path / "model")
    return tmp_path / "model"


def reopened(folder: Path) -> Policy:
    return Policy("policy", {"path": folder.name}, folder.parent, 5)


def edit(file: Path, **more: object) -> None:
    found = json.loads(file.read_text()) | more
    file.write_text(json.dumps(found))


def test_all_end_tokens_of_a_models_folder_end_a_completion(folder: Path, tmp_path: Path) -> None:
    """Models for chat end a turn by a token that only their generation config names; and so does what is exported."""
    edit(folder / "generation_config.json", eos_token_id=[1, 7], temperature=0.6)
    opened = reopened(folder)
    assert opened.stops == (1, 7)
    opened.save(tmp_path / "again")
    assert reopened(tmp_path / "again").stops == (1, 7)


@pytest.mark.parametrize(
    ("file", "more", "told"),
    [
        ("config.json", {"final_logit_softcapping": 30.0}, r"models\.policy: model: .*final_logit_softcapping"),
        ("generation_config.json", {"suppress_tokens": [5]}, r"models\.policy: model: `suppress_tokens`"),
        ("tokenizer_config.json", {"eos_token": None}, r"models\.policy: model: the tokenizer has no eos token"),
    ],
)
def test_a_model_that_would_compute_other_numbers_is_refused(folder: Path, file: str, more: Any, told: str) -> None:
    """By the list that `dflow validate` reads, too."""
    edit(folder / file, **more)
    with pytest.raises(UserError, match=told):
        reopened(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_the_users_with_its_place(folder: Path, file: str) -> None:
    """A library's line alone does not tell which of the spec's models it speaks of."""
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    with pytest.raises(UserError, match=r"models\.policy: model.* cannot be opened"):
        reopened(folder)


def test_want_of_memory_is_not_told_as_the_users_mistake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host may have more of it."""
    import transformers

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", full)
    with pytest.raises(MemoryError):
        reopened(folder)
