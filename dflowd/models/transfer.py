"""Long vectors between a host's memory and a GPU, through two pinned buffers of a fixed size.

A copy from pages that are not pinned goes through the driver's own buffers, and the GPU waits for each. Here one buffer
is filled while the other is on its way. The pages of shards are not pinned themselves: that takes longer than a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

STAGED = 1 << 24  # elements of a buffer: 64 MiB


def up(values: Tensor, out: Tensor, staged: int = STAGED) -> None:
    """Copy `values`, [n] float32 on the host, to `out`, [n] on a device, rounded to nearest in its dtype."""
    buffers = _Buffers(out.device, min(staged, len(values)))
    for turn, at in enumerate(range(0, len(values), staged)):
        part = values[at : at + staged]
        buffers.wait(turn)
        out[at : at + staged].copy_(buffers.part(turn, len(part)).copy_(part), non_blocking=True)
        buffers.sent(turn)
    for turn in range(2):
        buffers.wait(turn)


def down(values: Tensor, out: Tensor, staged: int = STAGED) -> None:
    """Copy `values`, [n] float32 on a device, to `out`, [n] float32 on the host."""
    buffers = _Buffers(values.device, min(staged, len(values)))
    starts = range(0, len(values), staged)
    for turn in range(len(starts) + 1):
        if turn < len(starts):
            part = values[starts[turn] :][:staged]
            buffers.part(turn, len(part)).copy_(part, non_blocking=True)
            buffers.sent(turn)
        if turn:
            there = out[starts[turn - 1] :][:staged]
            buffers.wait(turn - 1)
            there.copy_(buffers.part(turn - 1, len(there)))


class _Buffers:
    """Two, in turns; on a device that is the host's own they are ordinary memory."""

    def __init__(self, device: torch.device, size: int) -> None:
        is_cuda = device.type == "cuda"
        self._device = device
        self._parts = [torch.empty(size, dtype=torch.float32, pin_memory=is_cuda) for _ in range(2)]
        self._events = [torch.cuda.Event() for _ in range(2)] if is_cuda else []  # type: ignore[no-untyped-call]

    def part(self, turn: int, size: int) -> Tensor:
        return self._parts[turn % 2][:size]

    def sent(self, turn: int) -> None:
        """A copy that has the buffer of this turn is on its way."""
        if self._events:
            self._events[turn % 2].record(torch.cuda.current_stream(self._device))

    def wait(self, turn: int) -> None:
        """Until the last copy that had the buffer is done."""
        if self._events:
            self._events[turn % 2].synchronize()
