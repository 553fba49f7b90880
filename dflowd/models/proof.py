"""A model is worked with only if our passes say of it what its own forward says.

Whatever a config does not show (positions that are not read, a text that sees its neighbour in the row, a scale that is
left out) shows in a few tokens: texts that share a row with others, and texts continued from a cache, are held against
the model's plain forward of each text by itself, with its own attention in place of the kernels that engines use. Of a
critic, whose head may be zero yet, these are the states that its values are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dflowd.jobs.counter_random import digest, stream
from dflowd.jobs.failures import GivenUp, UserError, one_line

from .attention import WINDOWS
from .likelihood import likelihood, states, values
from .packing import micro_batches
from .policy import Policy
from .sampling import Sampler, sample, seats_of

TOLERANCE = 2e-4  # of the spread of a model's logits: rounding stays below 2e-5 of it, a wrong mask above 1e-2
WINDOW = 4  # tokens of a window or a chunk meanwhile, so that short texts outgrow it
PROMPTS = (7, 3)  # tokens
COMPLETION = 5  # tokens
BATCH = sum(PROMPTS) + 3 * COMPLETION
TRIES = 3  # with other tokens: two experts of nearly equal weight may change places by rounding, which is no fault


def require_own_numbers(policy: Policy, progress: Callable[[], None] = lambda: None) -> None:
    """Raises UserError for a model whose log-probabilities would be others than its own.

    `progress` is called after each pass; what it raises goes on.
    """
    kind = policy.model.config.model_type
    try:
        with _short_windows(policy.model.config):
            gaps = []
            for attempt in range(TRIES):
                gaps.append((_gap_of_states if policy.has_values else _gap)(policy, attempt, progress))
                if gaps[-1] <= TOLERANCE:
                    policy.require_adapters_reached()
                    return
    except (UserError, GivenUp, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"models.{policy.name}: a model of type `{kind}` cannot read packed texts: {one_line(error)}"
        ) from error
    raise UserError(
        f"models.{policy.name}: a model of type `{kind}` is not supported: texts in packed rows, or continued from a "
        f"cache, get log-probabilities that differ from its own by {min(gaps):.0e} of its logits' spread; take another "
        "architecture"
    )


def can_read_in_line(policy: Policy, progress: Callable[[], None] = lambda: None) -> bool:
    """Whether texts one behind the other, as `Policy.in_line` has them, get the model's own numbers. Architectures with
    an attention of their own, that does not ask transformers for one, need rows with masks."""
    before = policy.in_line
    policy.lay_out(in_line=True)
    try:
        require_own_numbers(policy, progress)
    except UserError:
        return False
    finally:
        policy.lay_out(before)
    return True


@torch.inference_mode()
def require_finite(policy: Policy, dtype: torch.dtype) -> None:
    """Raises UserError for a model that cannot compute in `dtype`, to which it was brought after it was proved."""
    drawn = _drawn(policy, digest("proof"), sum(PROMPTS))
    prompts = np.split(drawn, PROMPTS[:1])
    try:
        for batch in micro_batches(prompts, (0, 1), [drawn[:COMPLETION]] * 2, BATCH, policy.in_line):
            said = values(policy, batch) if policy.has_values else likelihood(policy, batch, 1.0)[0]
            if not said.isfinite().all():
                raise FloatingPointError("what it says is not finite")
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        kind, word = policy.model.config.model_type, str(dtype).removeprefix("torch.")
        raise UserError(
            f"models.{policy.name}: a model of type `{kind}` cannot compute in {word}: {one_line(error)}; use float32"
        ) from error


@torch.inference_mode()
def _gap(policy: Policy, attempt: int, progress: Callable[[], None]) -> float:
    """The largest difference of a token's log-probability, over the standard deviation of the logits."""
    key = digest("proof", attempt)
    drawn = _drawn(policy, key, sum(PROMPTS) + COMPLETION)
    first, second, other = np.split(drawn, np.cumsum(PROMPTS))
    prompts = [first, second]
    asked = [each.tolist() for each in prompts]
    made = sample(policy, asked, seats_of(0, len(asked), 1, COMPLETION), Sampler(key=key), progress)
    said = [row[:length] for row, length in zip(made.tokens, made.lengths, strict=True)]
    owners, texts = [0, 0, 1], [said[0], other, said[1]]
    packed = [np.zeros(len(text), np.float32) for text in texts]
    for batch in micro_batches(prompts, owners, texts, BATCH, policy.in_line):
        logp, _ = likelihood(policy, batch, 1.0)
        progress()
        for value, text, at in zip(logp.tolist(), batch.samples, batch.offsets, strict=True):
            packed[text][at] = value
    gap = 0.0
    with _own_attention(policy.model):
        for owner, text, ours in zip(owners, texts, packed, strict=True):
            own, spread = _own_logprobs(policy, prompts[owner], text)
            progress()
            gap = max(gap, float(np.abs(ours - own).max()) / spread)
            if text is not other:
                gap = max(gap, float(np.abs(made.logprobs[owner, : len(text)] - own).max()) / spread)
    return gap


@torch.inference_mode()
def _gap_of_states(policy: Policy, attempt: int, progress: Callable[[], None]) -> float:
    """The largest difference of a state's element, over the standard deviation of its text's."""
    drawn = _drawn(policy, digest("proof", attempt), sum(PROMPTS) + 3 * COMPLETION)
    prompts, texts = np.split(drawn[: sum(PROMPTS)], PROMPTS[:1]), np.split(drawn[sum(PROMPTS) :], 3)
    owners = [0, 0, 1]
    packed: list[list[Any]] = [[None] * COMPLETION for _ in texts]
    for batch in micro_batches(prompts, owners, texts, BATCH, policy.in_line):
        for state, text, at in zip(states(policy, batch), batch.samples, batch.offsets, strict=True):
            packed[text][at] = state
        progress()
    gap = 0.0
    with _own_attention(policy.model):
        for owner, text, ours in zip(owners, texts, packed, strict=True):
            tokens = np.concatenate((prompts[owner], text))[None, :-1].astype(np.int64)
            out: Any = policy.body(input_ids=torch.from_numpy(tokens).to(policy.device))
            own = out.last_hidden_state[0, len(prompts[owner]) - 1 :].float()
            gap = max(gap, float((torch.stack(ours).float() - own).abs().max() / own.std()))
            progress()
    return gap


def _drawn(policy: Policy, key: bytes, count: int) -> Any:
    """Tokens that the model can read, [count] int32."""
    known = policy.rows if policy.has_values else policy.vocabulary
    return (np.abs(stream(key, count)) * known).astype(np.int32)


def _own_logprobs(policy: Policy, prompt: Any, said: Any) -> tuple[Any, float]:
    """Log-probabilities of `said` [tokens], and the logits' standard deviation: one text, no mask, no cache."""
    tokens = torch.from_numpy(np.concatenate((prompt, said)).astype(np.int64))[None].to(policy.device)
    logits: Tensor = policy.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1].float()
    logp = torch.log_softmax(logits, -1).gather(-1, tokens[0, len(prompt) :, None])[:, 0]
    return logp.cpu().numpy(), float(logits.std())


@contextmanager
def _own_attention(model: Any) -> Iterator[None]:
    """Written out, so that what a kernel would leave out counts."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


@contextmanager
def _short_windows(config: Any) -> Iterator[None]:
    """Masks and caches ask the config for them at each pass."""
    usual = {key: length for key in WINDOWS if (length := getattr(config, key, None))}
    try:
        for key in usual:
            setattr(config, key, WINDOW)
        yield
    finally:
        for key, length in usual.items():
            setattr(config, key, length)
