"""What each token may look at, in layers of every kind.

A model makes a mask for each kind of layer that it has (everything before, a sliding window, chunks) by transformers'
functions of two places in a row. Rows here hold several completions behind one prompt, or padding on the left, so a
place in the row is no distance. The same functions are therefore asked with positions, and joined with what the layout
of the rows lets a token see. Outside of `looking` transformers' own masks stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionMaskInterface
from transformers.masking_utils import causal_mask_function, sdpa_mask


@dataclass(frozen=True, slots=True)
class Sight:
    """positions: [rows, keys] int64, of every token so far. seen: [rows, queries, keys] bool, of the last `queries`
    tokens: never what comes later in the row, and for every token itself."""

    positions: Tensor
    seen: Tensor


_SIGHT: ContextVar[Sight | None] = ContextVar("sight", default=None)


@contextmanager
def looking(sight: Sight) -> Iterator[None]:
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
) -> Tensor | None:
    """[rows, 1, queries, keys] bool; `kv_offset`: keys that a layer with a window has dropped from its cache."""
    sight = _SIGHT.get()
    if sight is None:
        return sdpa_mask(batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, use_vmap=use_vmap, **rest)
    if use_vmap:
        raise ValueError("its masks are made by a function of its own")
    kept = slice(kv_offset, kv_offset + kv_length)
    seen = sight.seen[:, None, :, kept]
    if mask_function is causal_mask_function:
        return seen
    row = torch.arange(batch_size, device=seen.device)[:, None, None, None]
    query = sight.positions[:, None, q_offset : q_offset + q_length, None]
    key = sight.positions[:, None, None, kept]
    return seen & mask_function(row, torch.zeros_like(row), query, key)  # type: ignore[no-any-return]


AttentionMaskInterface.register("sdpa", _mask)
