"""Models, data and what belongs to the whole run, of siiRL's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .context import ACTOR, CRITIC, Context
from .draft import LEFT_OUT, NO_TWIN
from .kinds import Kind
from .sampling import MATH

STEPS = 100
EVALUATED = 256
TRUNCATIONS = {"left": "cut_left", "error": "refuse"}

PLACEMENT = re.compile(
    r"""trainer\.(nnodes|n_gpus_per_node|logger|project_name|experiment_name|resume_\w+|default_\w+|device|balance_batch
    |should_\w+|log_\w+|\w+_data_dir|ray_\w+|val_before_train|remove_previous_ckpt_in_save|del_\w+|max_critic_\w+)
    |dag\..*|profiler\..*|.*\.(fsdp_config|megatron|profile|checkpoint|engine_kwargs|layer_name_map)\..*
    |.*\.(strategy|\w*micro_batch_size\w*|\w*use_dynamic_bsz|\w*_max_token_len_per_gpu|\w*offload|\w*parallel_size
    |gpu_memory_utilization|enforce_eager|free_cache_engine|enable_chunked_prefill|max_num_\w+|max_model_len|load_format
    |use_remove_padding|use_fused_kernels|use_torch_compile|use_shm|hybrid_engine|enable_gradient_checkpointing|mode
    |disable_log_stats|multi_stage_wake_up|trust_remote_code|recompute_old_log_prob|calculate_log_probs)
    |data\.(return_\w+|num_loader_workers|force_on_the_fly|\w*cache\w*|serialize_dataset|preprocessing_\w+|dataset_type)
    |reward_model\.launch_reward_fn_async""",
    re.VERBOSE,
)
"""Settings of hosts, memory and logs: daemons see to these, whatever a pipeline says."""


def models(context: Context) -> dict[str, dict[str, Any]]:
    """By name, each with its folder."""
    found: dict[str, dict[str, Any]] = {}
    used = {stage["model"] for stage in context.draft.spec["stages"] if "model" in stage}
    for agent in context.workflow.agents:
        for role, branch in (("policy", ACTOR), ("reference", ACTOR), ("critic", CRITIC)):
            name = context.model(role, agent)
            if name not in used:
                continue
            path = context.settings.get(f"{branch}.model.path") or context.settings.get(f"{ACTOR}.model.path")
            if not path:
                context.draft.fill_in(f"models.{name}", f"{branch}.model.path", "path: a Hugging Face model folder")
            found[name] = {"path": path or "model"}
            if role == "policy":
                found[name] |= _adapters(context)
            if role == "critic":
                found[name]["head"] = "value"
    return found


def _adapters(context: Context) -> dict[str, Any]:
    settings = context.settings
    rank, alpha = settings.get(f"{ACTOR}.model.lora_rank", 0), settings.get(f"{ACTOR}.model.lora_alpha", 16)
    targets = settings.get(f"{ACTOR}.model.target_modules", "all-linear")
    if not rank:
        return {}
    named = targets if isinstance(targets, list) else [] if targets == "all-linear" else [targets]
    return {"lora": {"rank": rank, "alpha": alpha, **({"targets": named} if named else {})}}


def data(context: Context) -> dict[str, dict[str, Any]]:
    """What is trained on, and what is measured by, if that was said."""
    files = _files(context.settings.get("data.train_files"))
    if not files:
        context.draft.fill_in("data.train", "data.train_files", "parquet: train.parquet")
        files = ["train.parquet"]
    prompts = _prompts(context)
    if len(files) == 1:
        found = {"train": _source(files[0], prompts)}
    else:
        found = {f"train_{index}": _source(file, prompts) for index, file in enumerate(files)}
        found["train"] = {"mix": dict.fromkeys(found, 1)}
        context.draft.note(
            NO_TWIN, "data.train_files", "several are drawn from in equal measure, not one after the other"
        )
    tests = _files(context.settings.get("data.val_files"))
    if tests:
        found["test"] = _source(tests[0], prompts)
        if tests[1:]:
            context.draft.note(NO_TWIN, "data.val_files", f"only {tests[0]} is measured by; add a stage for each other")
    return found


def _files(told: Any) -> list[str]:
    named = told if isinstance(told, list) else str(told or "").split(",")
    return [str(name).strip() for name in named if str(name).strip()]


def _source(file: str, prompts: Mapping[str, Any]) -> dict[str, Any]:
    kind = next((kind for kind in ("jsonl", "csv", "arrow") if file.endswith(f".{kind}")), "parquet")
    return {kind: file, **prompts}


def _prompts(context: Context) -> dict[str, Any]:
    """siiRL's rows: a conversation, and the right answer under `reward_model`."""
    settings = context.settings
    context.draft.remark(
        "data", "siiRL's rows: `prompt` is a conversation, `reward_model.ground_truth` the right answer"
    )
    settings.get("data.reward_fn_key")
    found = {"messages": settings.get("data.prompt_key", "prompt"), "answer": "reward_model.ground_truth"}
    if settings.has("data.max_prompt_length"):
        found["max_prompt_tokens"] = settings.get("data.max_prompt_length")
        is_filtered = settings.get("data.filter_overlong_prompts", False)
        way = str(settings.get("data.truncation", "error"))
        if not is_filtered and way not in TRUNCATIONS:
            context.draft.note(NO_TWIN, f"data.truncation={way}", "long prompts are refused")
        found["long_prompts"] = "drop" if is_filtered else TRUNCATIONS.get(way, "refuse")
    if settings.get("data.shuffle", True) is False:
        context.draft.note(NO_TWIN, "data.shuffle=False", "the order is drawn by the seed")
    return found


def evaluation(context: Context) -> dict[str, Any] | None:
    """A stage that measures as often as siiRL tests."""
    settings = context.settings
    every = settings.number("trainer.test_freq", -1)
    sampled = {key: settings.get(f"{ACTOR}.rollout.val_kwargs.{key}") for key in ("do_sample", "temperature", "top_p")}
    for key in ("n", "top_k"):
        settings.get(f"{ACTOR}.rollout.val_kwargs.{key}")
    rollouts = context.stages(Kind.ROLLOUT)
    if every <= 0 or not settings.get("data.val_files") or not rollouts:
        return None
    context.draft.fill_in("stages.test", "trainer.test_freq", f"count: {EVALUATED}; siiRL measures by all rows")
    config: dict[str, Any] = {"data": "test", "count": EVALUATED, "greedy": not sampled["do_sample"]}
    if sampled["do_sample"]:
        config |= {key: sampled[key] for key in ("temperature", "top_p") if sampled[key] not in (None, 1.0)}
    judges = [stage["config"]["function"] for stage in context.stages(Kind.REWARD)]
    stage = {"id": "test", "op": "evaluate", "model": rollouts[0]["model"], "every": every}
    engine = {"engine": "vllm"} if "engine" in rollouts[0] else {}
    return stage | engine | {"config": config | {"function": judges[0] if judges else MATH}}


def steps(context: Context) -> int:
    told = context.settings.number("trainer.total_training_steps", 0)
    epochs = context.settings.get("trainer.total_epochs", 30)
    if told > 0:
        return int(told)
    context.draft.fill_in("steps", "trainer.total_epochs", f"steps: {STEPS}; siiRL counts {epochs} epochs of its data")
    return STEPS


def run_keys(context: Context) -> dict[str, Any]:
    """How the run is kept."""
    settings, found = context.settings, {}
    every, keep = settings.number("trainer.save_freq", -1), settings.number("trainer.max_actor_ckpt_to_keep", 100)
    if every > 0:
        found["checkpoint"] = {"every": every, "keep": keep}
    return found


def tell_unasked(context: Context) -> None:
    """Settings that became nothing: those of placement in one line, each other one by itself."""
    unasked = context.settings.unasked()
    of_hosts = [key for key in unasked if PLACEMENT.fullmatch(key)]
    if of_hosts:
        what = "placement, memory and logs: daemons see to these"
        context.draft.note(LEFT_OUT, f"{len(of_hosts)} settings, such as {of_hosts[0]}", what)
    for key in unasked:
        if key not in of_hosts:
            told = context.settings.told[key]
            context.draft.note(NO_TWIN, f"{key}={told}", "this setting became nothing")


def uses_images(context: Context) -> bool:
    """Whether the run is of robots or pictures, which this program does not train on."""
    settings = context.settings
    is_robots = settings.get("algorithm.workflow_type") == "embodied" or context.has(Kind.EMBODIED)
    sees = re.search(r"[-_]vl\b", str(settings.get(f"{ACTOR}.model.path")), re.IGNORECASE) or settings.get(
        "data.image_key"
    )
    return bool(is_robots or sees or settings.get(f"{ACTOR}.model.model_type", "llm") != "llm")
