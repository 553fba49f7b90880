"""The C heap of an engine: what activations leave behind in it is given back to the machine."""

from __future__ import annotations

import ctypes

WORTH_PARAMETERS = 1 << 25  # below, a heap is small, and giving it back costs more (a page fault a page) than it frees


def give_back(parameters: int) -> None:
    """After the gradient of a model with so many parameters: return free pages of the heap, if that is worth it.

    Measured with 135M parameters and 512 tokens a micro-batch: 1,090 MB before, 280 MB after, in 0.09 s. While a
    state is applied, every node holds two of them, so that memory is needed then.
    """
    if parameters >= WORTH_PARAMETERS:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
