"""What other trainers (TRL, verl, OpenRLHF, transformers) call what a pipeline names otherwise: for hints alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

_WORDS: Final[Mapping[str, str]] = {
    "advantage": "gae adv",
    "answer": "ground_truth label solution target",
    "batch": "batch_size train_batch_size",
    "bfloat16": "bf16",
    "bounds": "clip_cov_lb clip_cov_ub",
    "clip": "cliprange eps_clip epsilon",
    "clip_norm": "grad_clip max_grad_norm",
    "compute": "amp bf16 dtype mixed_precision precision torch_dtype",
    "drift": "policy_drift_coeff",
    "dual_clip": "clip_ratio_c delta",
    "entropy": "ent_coef entropy_coef entropy_coeff entropy_loss_coef",
    "evaluate": "benchmark eval evaluation valid validation",
    "epochs": "max_epochs num_epochs num_iterations num_ppo_epochs num_train_epochs ppo_epochs update_epochs",
    "every": "eval_steps save_steps interval",
    "float32": "fp32",
    "gradient": "allreduce_dtype communication_data_type grad_reduce_dtype reduce_dtype",
    "generate": "inference rollout rollouts sample sampling",
    "group": "group_size n num_generations num_return_sequences samples_per_prompt",
    "jsonl": "data_files dataset dataset_name file files hf huggingface json path",
    "kind": "loss_type type",
    "kl": "beta kl_coef kl_loss_coef",
    "kl_horizon": "horizon",
    "kl_kind": "kl_estimator kl_loss_type kl_penalty",
    "kl_target": "kl_desired target target_kl",
    "logprob": "ref ref_logprob reference",
    "lr": "learning_rate",
    "max_prompt_tokens": "max_prompt_length max_seq_len max_source_length",
    "max_tokens": "max_completion_length max_length max_new_tokens response_length",
    "messages": "chat conversation conversations dialogue",
    "micro_batch_tokens": "micro_batch_size per_device_train_batch_size",
    "minibatches": "mini_batches num_mini_batches num_minibatches ppo_mini_batch_size steps_per_generation",
    "mix": "blend datasets interleave mixture probs weights",
    "optimizer": "learning_rate lr",
    "path": "hub model_name_or_path model_path name_or_path pretrained repo repo_id",
    "penalty": "ppo_kl_coef",
    "prompts": "batch_size prompts_per_step rollout_batch_size train_batch_size",
    "ramp_steps": "lr_warmup_steps num_warmup_steps warmup warmup_steps",
    "reply": "answer critique debate respond response",
    "reward": "grade grader judge reward_fn score verifier verify",
    "reward_model": "rm score_model",
    "sft": "finetune supervised",
    "share": "clip_cov_ratio kl_cov_ratio",
    "steps": "max_steps num_steps total_steps",
    "system": "system_message system_prompt",
    "template_args": "chat_template_kwargs template_kwargs",
    "train": "actor dapo dr_grpo grpo learn policy ppo rloo update",
    "weight_decay": "wd",
}


def called_here(name: str, known: Collection[str]) -> str | None:
    """The one of `known` that other programs call `name`, if any."""
    word = name.lower().replace("-", "_")
    return next((ours for ours, theirs in _WORDS.items() if ours in known and word in theirs.split()), None)
