"""Low-rank adapters by the commands of a user: the same weights on any number of daemons, through a kill, and out of
the mesh for others' tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.dflow import (
    SEES_S,
    answer,
    dflow,
    example_folder,
    has_reached,
    kill_all,
    killed_while_training,
)
from tests.support.until import until

LORA = ("--set", "models.policy.lora.rank=8", "--set", "models.policy.lora.alpha=16")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_folder(tmp_path_factory.mktemp("specs"))


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([[4, 9, 12, 3]])).logits


@pytest.fixture(scope="module")
def small(spec: Path) -> tuple[Path | str, ...]:
    """Five small steps that really train adapters, each saved."""
    return (spec, spec.with_name("early.yaml"), *LORA, "--set", "checkpoint.every=1")


@pytest.fixture(scope="module")
def alone(spec: Path, small: tuple[Path | str, ...]) -> dict[str, Any]:
    return answer("run", *small, "--nodes", "1", "--dir", spec.parent / "m1")


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [2, 4])
def test_adapters_do_not_depend_on_how_many_daemons_train_them(
    spec: Path, small: tuple[Path | str, ...], alone: dict[str, Any], nodes: int
) -> None:
    """Each engine has the base for itself, and adapters are summed as whole weights are."""
    whole = answer("run", *small, "--nodes", str(nodes), "--dir", spec.parent / f"m{nodes}")
    assert (whole["state"], whole["nodes"]) == ("done", nodes)
    assert (whole["weights"], whole["evals"]) == (alone["weights"], alone["evals"])


@pytest.mark.slow
def test_adapters_outlive_a_kill_and_leave_the_mesh_for_others_tools(
    spec: Path, small: tuple[Path | str, ...], alone: dict[str, Any]
) -> None:
    """What a team with scattered machines takes home opens in peft, and merged in transformers."""
    folder = spec.parent / "killed"
    with killed_while_training(small, folder) as whole:
        assert (whole["state"], whole["weights"]) == ("done", alone["weights"])
        dflow("export", whole["run"], spec.parent / "adapters", "--dir", folder)
        dflow("export", whole["run"], spec.parent / "merged", "--merge", "--dir", folder)
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(spec.parent / "merged")
    peft = pytest.importorskip("peft", reason="in the extra `dev`")
    base = AutoModelForCausalLM.from_pretrained(spec.parent / "adapters/base")
    before = logits(base).clone()
    adapted = peft.PeftModel.from_pretrained(base, spec.parent / "adapters").eval()
    assert (logits(adapted) - before).abs().max() > 1e-4
    assert (logits(merged) - logits(adapted)).abs().max() < 1e-5


@pytest.mark.slow
def test_adapters_are_taken_up_again_once_every_daemon_was_killed(
    spec: Path, small: tuple[Path | str, ...], alone: dict[str, Any]
) -> None:
    """A checkpoint on disk is the adapters and the hash of their base, and enough to go on from elsewhere."""
    folder = spec.parent / "again"
    nodes = answer("up", "--nodes", "2", "--dir", folder)["nodes"]
    try:
        run = answer("submit", *small, "--dir", folder)["run"]
        until(lambda: has_reached(folder, 2), SEES_S)
        kill_all(nodes)
        answer("up", "--nodes", "1", "--dir", folder)
        whole = answer("wait", run, "--dir", folder, "--timeout", "200")
        assert (whole["state"], whole["weights"]) == ("done", alone["weights"])
        log = (folder / "n0/log").read_text()
        assert "checkpoint.loaded" in log
    finally:
        dflow("down", "--dir", folder)
