"""Stages of a user's own between the built-in ones, by the engine that computes with real models."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_protocols.pipeline import Pipeline
from dflowd.engines.registry import open_engine
from tests.contracts.test_engine import tiny_spec, write_base
from tests.support.alone import Alone


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path)


def test_a_users_operator_and_a_reference_model_take_part(base: Path) -> None:
    """Most new algorithms are a function of rewards, and a KL to where the model came from."""
    (base / "mine.py").write_text(
        "def centre(rows, *, by):\n"
        "    mean = sum(row['reward'] for row in rows) / len(rows)\n"
        "    assert all(row['answer'] == row['prompt'][::-1] and row['completion'] is not None for row in rows)\n"
        "    return [by * (row['reward'] - mean) for row in rows]\n"
    )
    spec = tiny_spec("torch")
    spec["models"]["start"] = spec["models"]["policy"]
    reads = ["roll.rollout", "score.reward"]
    spec["stages"][3] = {
        "id": "adv",
        "op": "mine.py:centre",
        "reads": reads,
        "writes": ["advantage"],
        "config": {"by": 2.0},
    }
    spec["stages"].insert(4, {"id": "ref", "op": "logprob", "model": "start"})
    spec["stages"][5]["config"]["loss"] = {"kl": 0.1, "mean": "sequence"}
    seen: dict[int, dict[str, float]] = {}
    runner = Alone(open_engine("torch"), Pipeline.from_dict(spec), base, base / "checkpoints")
    runner.log = lambda step, metrics: seen.update({step: metrics})
    runner.run(runner.init(), range(2))
    assert seen[1]["kl"] > 0
    assert seen[1]["trained_samples"] == 24
    assert seen[1]["grad_norm"] > 0


def test_credit_by_token_goes_from_a_users_function_into_the_gradient(base: Path) -> None:
    """A penalty for each token that strays from a reference, as many implementations of PPO have it."""
    (base / "mine.py").write_text(
        "def credit(rows, *, beta):\n"
        "    gaps = [[p - q for p, q in zip(row['logprobs'], row['ref.logprob'])] for row in rows]\n"
        "    paid = [[row['adv.advantage'] - beta * gap for gap in each] for row, each in zip(rows, gaps)]\n"
        "    return {'gap': gaps, 'advantage': paid}\n"
    )
    spec = tiny_spec("torch")
    spec["models"]["start"] = spec["models"]["policy"]
    own = {"id": "credit", "op": "mine.py:credit", "reads": ["*"], "config": {"beta": 0.5}}
    own["writes"] = own["per_token"] = ["gap", "advantage"]
    spec["stages"][3:4] = [{"id": "ref", "op": "logprob", "model": "start"}, spec["stages"][3], own]
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.stage("credit").reads == ["roll.rollout", "score.reward", "ref.logprob", "adv.advantage"]
    runner = Alone(open_engine("torch"), pipeline, base, base / "checkpoints")
    seen: dict[int, dict[str, float]] = {}
    runner.log = lambda step, metrics: seen.update({step: metrics})
    runner.run(runner.init(), range(2))
    assert seen[1]["trained_samples"] == 24
    assert seen[1]["grad_norm"] > 0
