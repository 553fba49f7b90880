"""A weight of a divergence that follows it: what a spec may say, and what it would not mean."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError
from dflow_protocols.pipeline.weighing import Adaptive, adaptive, with_coefficients
from tests.unit.protocols.written_specs import example, stage

FOLLOWED = {"kl": 0.05, "kl_target": 0.1}


def written(adv: dict[str, Any] | None = None, loss: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    spec = example()
    spec["models"]["reference"] = dict(spec["models"]["policy"])
    spec["stages"].insert(3, {"id": "ref", "op": "logprob", "model": "reference"})
    stage(spec, "adv")["config"] = {"method": "rloo", **(adv or {})}
    stage(spec, "learn")["config"] |= {"loss": {"kind": "dr_grpo", **(loss or {})}}
    return spec | top


def test_a_weight_in_the_reward_and_one_in_the_loss_are_each_their_own() -> None:
    """Both follow the same measure, of the stage that both read."""
    pipeline = Pipeline.from_dict(written(FOLLOWED, FOLLOWED | {"kl_horizon": 500}))
    assert adaptive(pipeline) == (Adaptive("adv", "ref", 0.05, 0.1, 10_000), Adaptive("learn", "ref", 0.05, 0.1, 500))
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_a_stage_has_its_weight_as_the_version_has_it() -> None:
    pipeline = Pipeline.from_dict(written(FOLLOWED, FOLLOWED))
    learn, adv = (
        with_coefficients(pipeline.stage(name), (("learn", 0.07), ("adv", 0.02))) for name in ("learn", "adv")
    )
    assert (learn.config["loss"]["kl"], adv.config["kl"]) == (0.07, 0.02)
    assert with_coefficients(pipeline.stage("roll"), (("adv", 0.02),)) == pipeline.stage("roll")


def test_a_pipeline_without_a_target_says_nothing_of_one() -> None:
    """So it has the id that it had."""
    pipeline = Pipeline.from_dict(written({"kl": 0.05}, {"kl": 0.05}))
    assert adaptive(pipeline) == ()
    assert not any(key in pipeline.canonical() for key in (b"kl_target", b"kl_horizon"))


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (written(loss={"kl": 0.05, "kl_horizon": 500}), "stage `learn`: `kl_horizon` says how fast `kl` follows"),
        (written({"kl": 0.05, "kl_horizon": 500}), "stage `adv`: `kl_horizon` says how fast `kl` follows"),
        (written(loss={"kl": 0, "kl_target": 0.1}), "stage `learn`: `kl_target` moves `kl`, and that is 0"),
        (written({"kl_target": 0.1}), "stage `adv`: `kl_target` moves `kl`, and that is 0"),
        (written(FOLLOWED, lag=1), "stage `adv`: `kl_target` is of the newest version, and with `lag` rewards are"),
    ],
)
def test_what_could_not_follow_is_refused(spec: dict[str, Any], what: str) -> None:
    with pytest.raises(SpecError, match=what):
        Pipeline.from_dict(spec)


def test_in_the_loss_a_weight_may_follow_with_a_lag() -> None:
    """A gradient is of the version that it goes by."""
    assert adaptive(Pipeline.from_dict(written(loss=FOLLOWED, lag=1)))
