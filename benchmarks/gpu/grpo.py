"""What gpu/check asks of a whole step: GRPO by one daemon, beside TRL's trainer with the same model and settings."""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure import Figure, Tell
from benchmarks.overhead import meshed
from benchmarks.plain_loop import WARM_STEPS, spans
from dflow_cli.spec.specfile import load

from .trainer import SIZES, TOKENIZER

REWARD = """def score(completion, answer, *, prompt, entry):
    return sum(letter in "aeiou" for letter in completion) / 100
"""
GROUP = 8


@dataclass(frozen=True, slots=True)
class Task:
    """prompts: of a step; tokens: of a completion; engine: that samples ours."""

    folder: Path
    prompts: int
    tokens: int
    steps: int
    dtype: str
    engine: str

    @property
    def samples(self) -> int:
        return self.prompts * GROUP


def against_trl(
    tell: Tell, device: torch.device, more: Mapping[str, Any], prompts: int, tokens: int, steps: int
) -> Iterator[Figure]:
    """Samples a second of a run's median step. Both sample with vLLM where it is installed."""
    has_vllm = importlib.util.find_spec("vllm") is not None
    with tempfile.TemporaryDirectory() as name:
        on_gpu = device.type == "cuda"
        task = Task(
            Path(name), prompts, tokens, steps, "bfloat16" if on_gpu else "float32", "vllm" if has_vllm else "torch"
        )
        write_model(task.folder / "model", more)
        if not has_vllm:
            tell({"sampled by": "each trainer's own sampler", "why": "vLLM is not installed here"})
        ours = task.samples / statistics.median(our_steps(task))
        tell({"trainer": "dflowd, one daemon", "samples a second": ours})
        theirs = None
        if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
            tell({"skipped": "GRPO by TRL", "why": "the packages trl and datasets are not installed here"})
        else:
            theirs = task.samples / statistics.median(their_steps(task, on_gpu, has_vllm))
            tell({"trainer": "TRL", "samples a second": theirs})
    yield Figure("GRPO", "samples/s", ours, None if theirs is None else "TRL", theirs)


def write_model(folder: Path, more: Mapping[str, Any]) -> None:
    """Of random weights, that both trainers open."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    auto: Any = AutoModelForCausalLM
    auto.from_config(AutoConfig.for_model("llama", **{**SIZES, **more}), dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)


def words(task: Task) -> list[str]:
    """Of letters, which the tokenizer knows."""
    return [
        "".join(chr(ord("a") + (7 * number + 3 * at) % 26) for at in range(6)) for number in range(4 * task.prompts)
    ]


def our_steps(task: Task) -> list[float]:
    """Seconds of each step after the first ones."""
    lines = [json.dumps({"prompt": word, "answer": "a"}) for word in words(task)]
    (task.folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    (task.folder / "scores.py").write_text(REWARD)
    sampled = {"data": "words", "prompts": task.prompts, "group": GROUP, "partitions": 1, "max_tokens": task.tokens}
    trained = {"leaves": 1, "compute": task.dtype, "clip_norm": 1.0, "optimizer": {"adamw": {"lr": 1e-6}}}
    spec = {
        "name": "check",
        "steps": WARM_STEPS + 1 + task.steps,
        "models": {"policy": {"path": "model", "dtype": task.dtype}},
        "data": {"words": {"jsonl": "data.jsonl"}},
        "stages": [
            {"id": "roll", "op": "generate", "model": "policy", "engine": task.engine, "config": sampled},
            {"id": "score", "op": "reward", "config": {"function": "scores.py:score"}},
            {"id": "adv", "op": "advantage", "config": {"method": "grpo"}},
            {"id": "learn", "op": "train", "model": "policy", "config": trained},
        ],
    }
    (task.folder / "spec.yaml").write_text(json.dumps(spec))
    return meshed(load(task.folder / "spec.yaml", (), ()), 1).steps_s


def their_steps(task: Task, on_gpu: bool, has_vllm: bool) -> list[float]:
    datasets, trl = map(importlib.import_module, ("datasets", "trl"))
    from transformers import TrainerCallback

    ends: list[float] = []

    class Noting(TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            ends.append(time.perf_counter())

    settings = trl.GRPOConfig(
        output_dir=str(task.folder / "out"),
        per_device_train_batch_size=task.samples,
        num_generations=GROUP,
        max_completion_length=task.tokens,
        max_steps=WARM_STEPS + 1 + task.steps,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        use_vllm=has_vllm and on_gpu,
        vllm_mode="colocate",
        learning_rate=1e-6,
        beta=0.0,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        model_init_kwargs={"dtype": task.dtype},
    )
    trainer = trl.GRPOTrainer(
        model=str(task.folder / "model"),
        reward_funcs=lambda completions, **more: [
            sum(letter in "aeiou" for letter in each) / 100 for each in completions
        ],
        args=settings,
        train_dataset=datasets.Dataset.from_dict({"prompt": words(task)}),
        callbacks=[Noting()],
    )
    trainer.train()
    return spans(ends)
