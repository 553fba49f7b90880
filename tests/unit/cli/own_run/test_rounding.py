"""An export in bfloat16 is the model's, as any library rounds it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from dflow_cli.own_run.rounding import CHUNK, round_folder, rounded
from tests.support import zoo


def test_numbers_are_rounded_as_torch_does_it() -> None:
    """Ties to even, carries into the exponent, zeros of both signs, infinities, and what is too small to be normal."""
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 1 << 32, CHUNK // 4, np.uint32)
    bits[:9] = [0x3F808000, 0x3F818000, 0x3F7FFFFF, 0x80000000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1, 0x00008000]
    numbers = bits.view(np.float32)
    numbers[np.isnan(numbers)] = 1.5
    for count in (len(numbers), 7):
        expected = torch.from_numpy(numbers[:count]).bfloat16().view(torch.int16).numpy().tobytes()
        assert rounded(numbers[:count].tobytes()) == expected


@pytest.mark.parametrize("kind", ["Llama", "Qwen2, tied", "in several files"])
def test_a_rounded_folder_opens_as_the_model_rounded(kind: str, tmp_path: Path) -> None:
    """In one file or several; half as long, and nothing else in it."""
    kinds = {**zoo.ARCHITECTURES, **zoo.ON_DISK}
    folder = zoo.write(kinds[kind], tmp_path / "model")
    wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    before = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    (folder / "params-policy.f32").write_bytes(b"1234")
    round_folder(folder)
    found = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for (name, one), (_, other) in zip(found.named_parameters(), wanted.named_parameters(), strict=True):
        assert one.dtype == torch.bfloat16, name
        assert torch.equal(one, other), name
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) < 0.6 * before
    assert not (folder / "params-policy.f32").exists()
    for index in folder.glob("*.index.json"):
        assert json.loads(index.read_text())["metadata"]["total_size"] < 0.6 * before
