"""Gradients of losses against another implementation of them: TRL's trainers, each on one frozen batch.

`make peer` installs it into an environment of its own and runs this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from dflowd.algorithms.advantages.grpo import group_advantage
from dflowd.models.policy import Policy
from dflowd.training.leaf import LeafData, Objective, add_gradient
from tests.support import zoo

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.peer

TEMPERATURE = 0.7
CLIP = (0.2, 0.28)
GROUPS, SAMPLES, LONGEST = 6, 4, 40
MODELS = {
    "Llama": zoo.Kind("llama", {"hidden_size": 64, "num_hidden_layers": 3}),
    "Qwen2, tied": zoo.Kind("qwen2", {"hidden_size": 64, "num_hidden_layers": 3, "tie_word_embeddings": True}),
    "Gemma 3, windows": zoo.ARCHITECTURES["Gemma 3, windows in half of its layers"],
}
AGREE = 1.5e-6  # float32 sums in two orders: 7e-7 to 1.2e-6 were seen, five of 18 cases above 1e-6


@dataclass(frozen=True)
class Twin:
    """A loss as both name it. `theirs`: settings of GRPOConfig; `divisor`: of our sum."""

    kind: str
    settings: dict[str, Any]
    divisor: str
    theirs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_by_token(self) -> bool:
        return self.divisor == "tokens"


LOSSES = {  # by what TRL calls it, or what is turned on there
    "grpo": Twin("grpo", {"mean": "sequence"}, "samples"),
    "bnpo": Twin("grpo", {"mean": "token"}, "tokens"),
    "dapo": Twin("grpo", {"mean": "token"}, "tokens"),
    "dr_grpo": Twin("dr_grpo", {}, "constant"),
}
VARIANTS = {
    "delta": Twin("grpo", {"mean": "token", "dual_clip": 1.5}, "tokens", {"loss_type": "dapo", "delta": 1.5}),
    "entropy": Twin("grpo", {"mean": "token", "entropy": 0.1}, "tokens", {"loss_type": "bnpo", "entropy_coef": 0.1}),
    "bias-corrected KL": Twin(
        "grpo",
        {"mean": "token", "kl_kind": "k3_unbiased"},
        "tokens",
        {"loss_type": "dapo", "use_bias_correction_kl": True},
    ),
    "gspo": Twin("gspo", {}, "samples", {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    "cispo": Twin("cispo", {"high": 1 + CLIP[1]}, "tokens", {"loss_type": "cispo", "epsilon_high": 1 + CLIP[1]}),
}


@dataclass
class Batch:
    """`old`, `reference`: log-probabilities that the ratio and the KL are taken from, of a completion each."""

    prompts: list[Any]
    said: list[Any]
    advantages: Any
    old: list[Any]
    reference: list[Any]

    def leaf(self, beta: float) -> LeafData:
        return LeafData(
            prompts=self.prompts,
            owners=[sample // SAMPLES for sample in range(len(self.said))],
            completions=self.said,
            columns={"advantage": self.advantages.tolist(), "old_logprob": self.old}
            | ({"logprob": self.reference} if beta else {}),
        )

    def padded(self) -> dict[str, Any]:
        """As TRL lays it out: prompts padded on the left, completions on the right."""
        widest, rows = max(map(len, self.prompts)), len(self.said)
        prompts = [self.prompts[row // SAMPLES] for row in range(rows)]
        found = {
            "prompt_ids": _filled(widest, prompts, np.int64, on_the_left=True),
            "prompt_mask": _filled(widest, [np.ones(len(each)) for each in prompts], np.int64, on_the_left=True),
            "completion_ids": _filled(LONGEST, self.said, np.int64),
            "completion_mask": _filled(LONGEST, [np.ones(len(each)) for each in self.said], np.int64),
            "old_per_token_logps": _filled(LONGEST, self.old, np.float32),
            "ref_per_token_logps": _filled(LONGEST, self.reference, np.float32),
        }
        tokens = found["completion_mask"].sum()
        return {**found, "advantages": torch.from_numpy(self.advantages), "num_items_in_batch": tokens}


def _filled(width: int, rows: list[Any], dtype: Any, *, on_the_left: bool = False) -> torch.Tensor:
    table = np.zeros((len(rows), width), dtype)
    for at, row in enumerate(rows):
        table[at, slice(width - len(row), None) if on_the_left else slice(len(row))] = row
    return torch.from_numpy(table)


def frozen_batch(folder: Path) -> Batch:
    """Ratios far enough from 1 that a tenth of the tokens and more are clipped."""
    drawn = np.random.default_rng(0)
    prompts = [drawn.integers(6, 250, int(length)).astype(np.int32) for length in drawn.integers(3, 20, GROUPS)]
    lengths = drawn.integers(1, LONGEST, GROUPS * SAMPLES)
    said = [drawn.integers(6, 250, int(length)).astype(np.int32) for length in lengths]
    rewards = drawn.random((GROUPS, SAMPLES)).astype(np.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        now = [
            zoo.own_logprobs(model, prompts[row // SAMPLES], each, TEMPERATURE).numpy() for row, each in enumerate(said)
        ]
    old, reference = (
        [logp + (size * drawn.normal(size=len(logp))).astype(np.float32) for logp in now] for size in (0.25, 0.3)
    )
    return Batch(prompts, said, group_advantage(rewards, "std").reshape(-1), old, reference)


def our_gradient(folder: Path, batch: Batch, twin: Twin, beta: float) -> tuple[Any, dict[str, float]]:
    policy = Policy("policy", {"path": folder.name}, folder.parent, 0)
    total = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.begin_gradient(total)
    settings = {"clip": CLIP, "kl": beta, **twin.settings}
    objective = Objective(twin.kind, settings, twin.divisor, 8192, TEMPERATURE, LONGEST)
    sums = add_gradient(policy, batch.leaf(beta), objective, lambda: None)
    policy.parameters.end_gradient()
    return total / np.float32(sums["loss_count"]), sums


def their_gradient(folder: Path, batch: Batch, theirs: dict[str, Any], beta: float) -> tuple[Any, dict[str, float]]:
    asked = {"use_bias_correction_kl": False, "epsilon_high": CLIP[1], **theirs}
    settings = trl.GRPOConfig(
        output_dir=str(folder.parent / "out"),
        beta=beta,
        epsilon=CLIP[0],
        temperature=TEMPERATURE,
        per_device_train_batch_size=GROUPS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=LONGEST,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        model_init_kwargs={"dtype": "float32"},
        **asked,
    )
    trainer = trl.GRPOTrainer(
        model=str(folder),
        reward_funcs=lambda completions, **more: [0.0] * len(completions),
        args=settings,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a"] * GROUPS * SAMPLES}),
        processing_class=zoo.tokenizer_of(),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trainer._compute_loss(trainer.model, batch.padded()).backward()
    gradient = zoo.flat(trainer.model, zoo.gradient_of)
    return gradient, {name: float(values[-1]) for name, values in trainer._metrics["train"].items()}


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_the_one_that_trl_computes(name: str, loss_type: str, beta: float, tmp_path: Path) -> None:
    """Clipped tokens, a temperature, a mean over tokens or sequences and a KL, each of which could be off by itself."""
    folder = zoo.write(MODELS[name], tmp_path / "model")
    batch, twin = frozen_batch(folder), LOSSES[loss_type]
    ours, sums = our_gradient(folder, batch, twin, beta)
    theirs, metrics = their_gradient(folder, batch, {"loss_type": loss_type}, beta)
    tokens = sums["trained_tokens"]
    gap = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    print(f"{name}, {loss_type}, KL {beta}: {gap:.1e} of the largest element")
    assert gap < AGREE
    assert (sums["clipped_low"] + sums["clipped_high"]) / tokens > 0.1
    if twin.is_by_token:  # TRL's share of clipped tokens is over tokens too
        assert sums["clipped_low"] / tokens == pytest.approx(metrics["clip_ratio/low_mean"], abs=1e-6)
        assert sums["clipped_high"] / tokens == pytest.approx(metrics["clip_ratio/high_mean"], abs=1e-6)
    if beta:
        assert sums["kl_sum"] / tokens == pytest.approx(metrics["kl"], rel=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variants_gradient_is_the_one_that_trl_computes(variant: str, tmp_path: Path) -> None:
    """What is a setting here and a setting there, too, each with a divergence taken off."""
    folder = zoo.write(MODELS["Llama"], tmp_path / "model")
    batch, twin = frozen_batch(folder), VARIANTS[variant]
    ours, _ = our_gradient(folder, batch, twin, 0.04)
    theirs, _ = their_gradient(folder, batch, twin.theirs, 0.04)
    gap = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    print(f"{variant}: {gap:.1e} of the largest element")
    assert gap < AGREE


PAIRS, CHOSEN = 5, 9  # pairs of a batch, and tokens of each better completion: TRL weighs tokens alike, RPO completions
WORSE = range(3, 20)  # tokens of a worse one: TRL takes the difference of float32 sums, whose rounding grows with them
BETA = 0.1
TOLD = {  # a figure of ours by what TRL calls it
    "chosen_logprob_sum": "logps/chosen",
    "rejected_logprob_sum": "logps/rejected",
    "chosen_reward_sum": "rewards/chosen",
    "rejected_reward_sum": "rewards/rejected",
    "preference_margin_sum": "rewards/margins",
    "preferred": "rewards/accuracies",
}


@dataclass
class Pairs:
    """`said`: of each prompt its better completion, then its worse one; `reference`: log-probabilities of their tokens,
    as far from the model's own as training may have led it."""

    prompts: list[Any]
    said: list[Any]
    reference: list[Any]

    def leaf(self) -> LeafData:
        signs = [1.0, -1.0] * len(self.prompts)
        owners = [row // 2 for row in range(len(self.said))]
        return LeafData(self.prompts, owners, self.said, {"advantage": signs, "logprob": self.reference})

    def padded(self) -> dict[str, Any]:
        """As TRL lays it out: texts padded on the right, all better ones first."""
        order = [*range(0, len(self.said), 2), *range(1, len(self.said), 2)]
        prompts, said = [self.prompts[row // 2] for row in order], [self.said[row] for row in order]
        texts = [np.concatenate(each) for each in zip(prompts, said, strict=True)]
        own = [np.repeat([0, 1], [len(prompt), len(each)]) for prompt, each in zip(prompts, said, strict=True)]
        widest = max(map(len, texts))
        known = torch.tensor([float(self.reference[row].sum()) for row in order])
        return {
            "input_ids": _filled(widest, texts, np.int64),
            "attention_mask": _filled(widest, [np.ones(len(each)) for each in texts], np.int64),
            "completion_mask": _filled(widest, own, np.int64),
            "ref_chosen_logps": known[: len(known) // 2],
            "ref_rejected_logps": known[len(known) // 2 :],
        }


def frozen_pairs(folder: Path) -> Pairs:
    drawn = np.random.default_rng(1)
    prompts = [drawn.integers(6, 250, int(length)).astype(np.int32) for length in drawn.integers(3, 20, PAIRS)]
    lengths = [length for other in drawn.integers(WORSE.start, WORSE.stop, PAIRS) for length in (CHOSEN, int(other))]
    said = [drawn.integers(6, 250, length).astype(np.int32) for length in lengths]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        now = [zoo.own_logprobs(model, prompts[row // 2], each, 1.0).numpy() for row, each in enumerate(said)]
    reference = [logp + (0.3 * drawn.normal(size=len(logp))).astype(np.float32) for logp in now]
    return Pairs(prompts, said, reference)


def their_preferences(folder: Path, pairs: Pairs, nll: float) -> tuple[Any, dict[str, float]]:
    """The gradient of DPO, and TRL's figures with `loss`, as its `Trainer` would log that."""
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    trainer = trl.DPOTrainer(
        model=str(folder),
        args=trl.DPOConfig(
            output_dir=str(folder.parent / "out"),
            beta=BETA,
            loss_type=["sigmoid", "sft"] if nll else "sigmoid",
            loss_weights=[1.0, nll] if nll else None,
            per_device_train_batch_size=PAIRS,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=datasets.Dataset.from_list([row] * PAIRS),
        processing_class=zoo.tokenizer_of(),
    )
    trainer.precompute_ref_logps = True  # the batch has them
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, pairs.padded(), return_outputs=False)
    loss.backward()
    told = {name: float(values[-1]) for name, values in trainer._metrics["train"].items()}
    return zoo.flat(trainer.model, zoo.gradient_of), told | {"loss": float(loss.detach())}


@pytest.mark.parametrize("nll", [0.0, 0.7])
@pytest.mark.parametrize("name", MODELS)
def test_preferences_have_the_loss_and_the_gradient_that_trl_computes(name: str, nll: float, tmp_path: Path) -> None:
    """DPO, and beside it the likelihood of the better completions."""
    folder = zoo.write(MODELS[name], tmp_path / "model")
    pairs = frozen_pairs(folder)
    policy = Policy("policy", {"path": folder.name}, folder.parent, 0)
    total = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.begin_gradient(total)
    objective = Objective("dpo", {"beta": BETA, "nll": nll}, "samples", 8192, is_of_pairs=True)
    sums = add_gradient(policy, pairs.leaf(), objective, lambda: None)
    policy.parameters.end_gradient()
    ours = total / np.float32(sums["loss_count"])
    theirs, told = their_preferences(folder, pairs, nll)
    gap = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    loss = sums["loss_sum"] / sums["loss_count"]
    print(f"{name}, dpo, nll {nll}: {gap:.1e} of the largest element; losses {abs(loss - told['loss']):.1e} apart")
    assert gap < AGREE
    assert loss == pytest.approx(told["loss"], rel=1e-6)
    for figure, theirs_name in TOLD.items():
        assert sums[figure] / PAIRS == pytest.approx(told[theirs_name], rel=1e-5, abs=1e-5)
