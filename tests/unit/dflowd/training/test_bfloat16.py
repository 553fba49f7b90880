"""bfloat16 by numpy is that of PyTorch, bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dflowd.training.bfloat16 import NOT_A_NUMBER, narrow, rounded, widen

TIES = [0x3F808000, 0x3F818000, 0x3F808001, 0x7F7F8000, 0x00008000, 0x80000001, 0x7F800000, 0xFF800000]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1).map(lambda bits: TIES + bits))
def test_every_float32_has_the_bfloat16_that_pytorch_gives_it(bits: list[int]) -> None:
    """An engine on a GPU rounds by PyTorch, and must make the block that one without it makes."""
    values = np.array(bits, np.uint32).view(np.float32)
    numbers = ~np.isnan(values)
    theirs = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    ours = narrow(values)
    assert np.array_equal(ours[numbers], theirs[numbers])
    assert (ours[~numbers] == NOT_A_NUMBER).all()


def test_what_is_rounded_once_stays_as_it_is() -> None:
    """A block is read from its shards as it was when it was summed."""
    values = np.random.default_rng(1).standard_normal(1000, np.float32)
    assert rounded(rounded(values)).tobytes() == rounded(values).tobytes()
    assert narrow(widen(narrow(values))).tobytes() == narrow(values).tobytes()
