"""Vectors of the tree on the device that computes them, as far as there is room for them beside the passes.

What is added to lies on the device. Of what waits for its other half, that which waits longest is the first to go to
the host where there is too little room, in pinned pieces; it is added on the device, piece by piece, when its time
comes. The tree is the same, and each addition is one of float32 either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dflowd.models.transfer import down

from .accumulate import ELEMENTS, HostMemory, Memory, Stored, Vector, spans, store

BYTES = 4  # an element
PIECE = ELEMENTS  # elements that go to the host, and come back, together
PROGRESS = 1 << 26  # elements that are written before the next sign of progress
SPARE = 1.5  # times what the largest pass took so far is left to the next ones
LEAST = 0.05  # of the device's memory is left to them at least: kernels have workspaces that come and go


def memory_on(device: torch.device, size: int, progress: Callable[[], None]) -> Memory[Any]:
    """For vectors of `size` elements that passes on this device add to. `progress` is called after each run of them."""
    if device.type != "cuda":
        return HostMemory(size, progress)
    return DeviceMemory(size, device, Room(device), progress)


@dataclass(slots=True)
class Held:
    """A vector: `whole`, [P] on the device, or in `pieces` of PIECE on the host."""

    whole: Tensor | None
    pieces: list[Tensor] = field(default_factory=list)


class DeviceMemory:
    """`has_room`: whether the device has memory for so many bytes more. The first vector is not asked for."""

    def __init__(
        self,
        size: int,
        device: torch.device,
        has_room: Callable[[int], bool],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._size = size
        self._device = device
        self._has_room = has_room
        self._progress = progress
        self._held: list[Held] = []  # in use, in the order in which they were asked for
        self._spare: list[Tensor] = []
        self._spare_pieces: list[list[Tensor]] = []
        self._is_full = False

    def lend(self, room: Vector) -> None:
        """Not used: a device does not compute in the host's memory."""

    def blank(self) -> Held:
        found = Held((self._spare.pop() if self._spare else self._new()).zero_())
        self._held.append(found)
        return found

    def values(self, vector: Held) -> Tensor:
        return self._whole(vector)

    def add(self, left: Held, right: Held) -> Held:
        if left.whole is None and right.whole is not None:
            left, right = right, left  # the order shows in no bit
        if left.whole is not None and right.whole is not None:
            left.whole.add_(right.whole)
            self._spare.append(right.whole)
        else:
            for into, piece in zip(self._pieces_of(left), right.pieces, strict=True):
                into.add_(piece.to(into.device, non_blocking=True))
                self._progress()
            self._spare_pieces.append(right.pieces)
        self._held = [each for each in self._held if each is not right]
        return left

    def round(self, vector: Held) -> None:
        for part in self._pieces_of(vector):
            part.copy_(part.bfloat16())
            self._progress()

    def is_finite(self, vector: Held) -> bool:
        finite = [part.isfinite().all() for part in self._pieces_of(vector)]
        return bool(torch.stack(finite).all()) if finite else True

    def mark(self, vector: Held) -> None:
        for part in self._pieces_of(vector):
            part.zero_()
        next(self._pieces_of(vector))[:1].fill_(torch.nan)

    def lies_in(self, vector: Held, room: Stored) -> bool:
        return False

    def write(self, vector: Held, room: Stored) -> None:
        longest = PROGRESS if room.dtype == np.float32 else PIECE
        runs = torch.split(vector.whole, longest) if vector.whole is not None else vector.pieces
        rooms = (room[span] for span in spans(self._size, len(runs[0])))
        for part, there in zip(runs, rooms, strict=True):
            values: Vector = there.view(np.float32) if there.dtype == np.float32 else np.empty(len(there), np.float32)
            down(part, torch.from_numpy(values))
            store(values, there)
            self._progress()
        if room.dtype == np.float32 and np.isnan(room[:1]).any():
            room[:1] = np.nan  # a marked leaf is in it, and additions on a device may have changed its bits
        self._held = [each for each in self._held if each is not vector]

    def _new(self) -> Tensor:
        """Memory on the device, that of whatever waits longest where there is no other."""
        waiting = [each for each in self._held if each.whole is not None]
        if not waiting or (not self._is_full and self._has_room(BYTES * self._size)):
            try:
                return torch.empty(self._size, dtype=torch.float32, device=self._device)
            except torch.OutOfMemoryError:
                if not waiting:
                    raise
        self._is_full = True
        return self._evict(waiting[0])

    def _evict(self, vector: Held) -> Tensor:
        whole = self._whole(vector)
        pieces = self._spare_pieces.pop() if self._spare_pieces else self._new_pieces()
        for part, piece in zip(self._pieces_of(vector), pieces, strict=True):
            piece.copy_(part, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the host may read the pieces from here on
        vector.whole, vector.pieces = None, pieces
        self._progress()
        return whole

    def _new_pieces(self) -> list[Tensor]:
        is_cuda = self._device.type == "cuda"
        return [
            torch.empty(span.stop - span.start, dtype=torch.float32, pin_memory=is_cuda)
            for span in spans(self._size, PIECE)
        ]

    def _pieces_of(self, vector: Held) -> Iterator[Tensor]:
        if vector.whole is None:
            return iter(vector.pieces)
        return iter(torch.split(vector.whole, PIECE))

    def _whole(self, vector: Held) -> Tensor:
        assert vector.whole is not None, "passes add to what was asked for last"
        return vector.whole


class Room:
    """Of a GPU, asked between passes: what is free, less what passes need by what they took so far."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._largest = 0  # bytes that a pass took
        torch.cuda.reset_peak_memory_stats(device)

    def __call__(self, nbytes: int) -> bool:
        now = torch.cuda.memory_allocated(self._device)
        self._largest = max(self._largest, torch.cuda.max_memory_allocated(self._device) - now)
        torch.cuda.reset_peak_memory_stats(self._device)
        free, total = torch.cuda.mem_get_info(self._device)
        kept = torch.cuda.memory_reserved(self._device) - now
        return nbytes <= free + kept - max(SPARE * self._largest, LEAST * total)
