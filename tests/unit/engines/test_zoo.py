"""Models of many architectures say here what they say by themselves, or are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dflowd.engines.contract import Engine
from tests.support import zoo

KINDS = {**zoo.ARCHITECTURES, **zoo.ON_DISK}

WRITTEN_OTHERWISE = ("GPT-NeoX", "Mixtral", "Qwen2-MoE", "Qwen3-MoE")  # transformers' files have other names and parts


@pytest.fixture(scope="module")
def engine() -> Engine:
    from dflowd.engines.torch_engine import TorchEngine

    return TorchEngine()


@pytest.mark.parametrize("name", KINDS)
def test_what_is_sampled_trained_and_saved_is_the_models_own(name: str, engine: Engine, tmp_path: Path) -> None:
    """Log-probabilities that are not the model's train another policy, and nothing in a run's curves tells."""
    kind = KINDS[name]
    (tmp_path / "words.jsonl").write_text(json.dumps({"prompt": "a", "answer": "b"}) + "\n")
    found = zoo.examine(engine, zoo.write(kind, tmp_path / "model"))
    assert found.sampled < 2e-5
    assert found.trained < 2e-5
    assert found.gradient < 1e-5
    assert found.checkpoint or name in WRITTEN_OTHERWISE
    assert found.export
    assert found.ends == (kind.ends or (2,))
