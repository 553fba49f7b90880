"""A small pipeline for tests of daemons: four stages on the emulated engine, real bytes, pretended time."""

from __future__ import annotations

from dflow_protocols.pipeline import Pipeline


def toy_pipeline(
    steps: int = 3,
    partitions: int = 4,
    leaves: int = 4,
    parameters: int = 300_000,
    generate_s: float = 0.0,
    gradient_s: float = 0.0,
    apply_s: float = 0.0,
    tokens: int = 32,
    seed: int = 1,
    on_poison: str = "fail",
    **profile_of: float,
) -> Pipeline:
    """`parameters`: float32 of the model, so 4 bytes each. The times are an engine's, seconds a call.
    `tokens`: mean length of a completion, 8 bytes each. `profile_of`: more of the engine's profile."""
    profile = {
        "generate_s": generate_s,
        "gradient_s": gradient_s,
        "apply_s": apply_s,
        "tokens": tokens,
        "parameters": parameters,
        **profile_of,
    }
    roll = {"data": "words", "prompts": 4 * partitions, "group": 4, "partitions": partitions, "max_tokens": 6}
    learn = {"leaves": leaves, "optimizer": {"adamw": {"lr": 1e-3}}}
    return Pipeline.from_dict(
        {
            "name": "toy",
            "seed": seed,
            "steps": steps,
            "engine": "emulated",
            "on_poison": on_poison,
            "emulated": profile,
            "models": {"policy": {"init": {"config": "c.json", "tokenizer": "t"}}},
            "data": {"words": {"reasoning_gym": "spell_backward"}},
            "stages": [
                {"id": "roll", "op": "generate", "model": "policy", "config": roll},
                {"id": "score", "op": "reward"},
                {"id": "adv", "op": "advantage", "config": {"method": "grpo"}},
                {"id": "learn", "op": "train", "model": "policy", "config": learn},
            ],
        }
    )
