"""What each token may look at, in layers of every kind, and how it is looked at where texts lie one behind the other.

A model makes a mask for each kind of layer that it has (everything before, a sliding window, chunks) by transformers'
functions of two places in a row. Rows here hold several completions behind one prompt, or padding on the left, so a
place in the row is no distance. The same functions are therefore asked with positions, and joined with what the layout
of the rows lets a token see (`Sight`).

Texts that share nothing need no mask (`Line`): they lie one behind the other in one row, without padding, and each
layer is told where its texts begin and how far it looks. A chunk of a text is a text of its own then. On a GPU a kernel
for texts of any lengths computes all of them (FlashAttention-2, arXiv 2307.08691); elsewhere each text is computed by
itself. Outside of `looking` transformers' own masks stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

MAX_WIDTH = 256  # of a head, that the kernel takes
WINDOWS = ("sliding_window", "attention_chunk_size")
"""Keys of a config that say how far layers look which do not see everything before."""


@dataclass(frozen=True, slots=True)
class Sight:
    """positions: [rows, keys] int64, of every token so far. seen: [rows, queries, keys] bool, of the last `queries`
    tokens: never what comes later in the row, and for every token itself."""

    positions: Tensor
    seen: Tensor


@dataclass(frozen=True, slots=True)
class Line:
    """Texts one behind the other in one row. positions: [1, tokens] int64, from 0 in each text. bounds: where each text
    begins, and the last one ends."""

    positions: Tensor
    bounds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Spans:
    """What one kind of layer sees of a `Line`, in place of its mask: of each span a token sees those before it, at most
    `window` with itself. starts: [spans + 1] int32, on the tokens' device; bounds: the same numbers here."""

    starts: Tensor
    bounds: tuple[int, ...]
    window: int | None

    @property
    def longest(self) -> int:
        return max(end - first for first, end in pairwise(self.bounds))


_SIGHT: ContextVar[Sight | Line | None] = ContextVar("sight", default=None)


@contextmanager
def looking(sight: Sight | Line) -> Iterator[None]:
    """Models opened with sdpa attention see this and no more."""
    before = _SIGHT.set(sight)
    try:
        yield
    finally:
        _SIGHT.reset(before)


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    use_vmap: bool = False,
    **rest: Any,
) -> Tensor | Spans | None:
    """[rows, 1, queries, keys] bool; `kv_offset`: keys that a layer with a window has dropped from its cache."""
    sight = _SIGHT.get()
    if sight is None:
        return sdpa_mask(batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, use_vmap=use_vmap, **rest)
    if use_vmap:
        raise ValueError("its masks are made by a function of its own")
    if isinstance(sight, Line):
        return _spans(sight, mask_function is causal_mask_function, rest)
    kept = slice(kv_offset, kv_offset + kv_length)
    seen = sight.seen[:, None, :, kept]
    if mask_function is causal_mask_function:
        return seen
    row = torch.arange(batch_size, device=seen.device)[:, None, None, None]
    query = sight.positions[:, None, q_offset : q_offset + q_length, None]
    key = sight.positions[:, None, None, kept]
    return seen & mask_function(row, torch.zeros_like(row), query, key)  # type: ignore[no-any-return]


def _spans(line: Line, is_whole: bool, rest: Mapping[str, Any]) -> Spans:
    """By what transformers tells of a kind of layer: a length, which the config says the meaning of."""
    bounds, window = line.bounds, None
    if not is_whole:
        config, length = rest["config"], int(rest.get("local_size") or 0)
        kinds = [key for key in WINDOWS if getattr(config, key, None) == length]
        if len(kinds) != 1:
            raise ValueError("its layers see neither everything before, nor a window, nor a chunk")
        if kinds[0] == "sliding_window":
            window = length
        else:
            cuts = (at for first, end in pairwise(bounds) for at in range(first, end, length))
            bounds = (*cuts, bounds[-1])
    starts = torch.tensor(bounds, dtype=torch.int32)
    return Spans(starts.to(line.positions.device, non_blocking=True), bounds, window)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Spans | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """[rows, queries, heads, width]. query: [rows, heads, queries, width], key and value with fewer heads or as many.

    Raises ValueError for what a kernel for texts one behind the other leaves out.
    """
    if not isinstance(attention_mask, Spans):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **rest)
    left_out = [name for name in ("softcap", "s_aux", "position_bias") if rest.get(name) is not None]
    if left_out or dropout or not (rest.get("is_causal") in (None, True) and getattr(module, "is_causal", True)):
        raise ValueError(f"its attention has {' and '.join(left_out) or 'dropout or sight of what comes later'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    is_by_kernel = query.is_cuda and query.dtype != torch.float32 and max(query.shape[-1], value.shape[-1]) <= MAX_WIDTH
    attended = _by_kernel if is_by_kernel else _by_text
    return attended(query, key, value, attention_mask, scale), None


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> Tensor:
    """Its tensors are [tokens, heads, width], of one width that is a multiple of eight: zeros change no product."""
    width = value.shape[-1]
    wide = -(-max(query.shape[-1], width) // 8) * 8
    q, k, v = (functional.pad(each[0].transpose(0, 1), (0, wide - each.shape[-1])) for each in (query, key, value))
    found = varlen_attn(
        q,
        k,
        v,
        spans.starts,
        spans.starts,
        spans.longest,
        spans.longest,
        scale=scale,
        window_size=(-1 if spans.window is None else spans.window - 1, 0),
        enable_gqa=True,
    )
    assert isinstance(found, Tensor)
    return found[None, ..., :width]


def _by_text(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = []
    for first, end in pairwise(spans.bounds):
        length, mask = end - first, None
        if spans.window is not None and length > spans.window:
            whole = torch.ones((length, length), dtype=torch.bool, device=query.device)
            mask = whole.tril() & whole.triu(1 - spans.window)
        q, k, v = (each[:, :, first:end] for each in (query, key, value))
        parts.append(functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale))
    return torch.cat(parts, 2).transpose(1, 2)


AttentionMaskInterface.register("sdpa", _mask)
AttentionInterface.register("sdpa", attend)
