"""An engine's own test has in it what would show that its device adds up in changing orders."""

from __future__ import annotations

import pytest
import torch

from dflowd.engines.exactness import _long_pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_long_pass_of_a_gpu_is_the_same_twice(dtype: torch.dtype) -> None:
    """In short, where there is none: a pass that fails here would keep every GPU from working."""
    first, second = (list(_long_pass(torch.device("cpu"), dtype, 128)) for _ in range(2))
    assert len(first) == 2
    for one, other in zip(first, second, strict=True):
        assert one.isfinite().all()
        assert one.abs().sum() > 0
        assert torch.equal(one, other)
