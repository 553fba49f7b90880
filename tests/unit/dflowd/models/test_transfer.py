"""Long vectors on their way between a host and a device; the processor stands in for one."""

from __future__ import annotations

import pytest
import torch

from dflowd.models.transfer import down, up


@pytest.mark.parametrize("size", [1, 4, 5, 8, 19])
def test_what_goes_up_and_comes_down_in_pieces_is_whole(size: int) -> None:
    """A buffer that is used before its copy is done, or a piece left out, would be other weights in silence."""
    values = torch.randn(size)
    there, back, rounded = torch.zeros(size), torch.zeros(size), torch.zeros(size, dtype=torch.bfloat16)
    up(values, there, staged=4)
    down(there, back, staged=4)
    up(values, rounded, staged=4)
    assert torch.equal(back, values)
    assert torch.equal(rounded, values.to(torch.bfloat16))
