"""AdamW (arXiv 1711.05101) over flat float32 vectors, and its learning rate as a function of the update's number.

Only additions, multiplications, divisions and square roots, each rounded once: any slicing gives the same bits, and
so does any machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .accumulate import Vector

BLOCK = 1 << 16  # elements worked on at once, so that a block's five vectors stay in the cache


@dataclass(frozen=True, slots=True)
class AdamW:
    """Settings of one training stage's optimizer."""

    lr: float
    end: float | None = None  # learning rate of the last update; None: stays at `lr`
    ramp_steps: int = 0  # updates until `lr` is reached, linearly from lr / ramp_steps
    schedule: str = "linear"  # how `lr` falls to `end` after the ramp: linear | cosine
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AdamW:
        """From a stage's validated `optimizer` section, such as {adamw: {lr: 1e-3}}."""
        fields = {key: value for key, value in config["adamw"].items() if value is not None or key == "end"}
        if "betas" in fields:
            low, high = fields["betas"]
            fields["betas"] = (float(low), float(high))
        return cls(**fields)

    def learning_rate(self, update: int, updates: int) -> float:
        """Of update number `update` (from 0) of `updates`."""
        if update < self.ramp_steps:
            return self.lr * (update + 1) / self.ramp_steps
        if self.end is None:
            return self.lr
        share = min(1.0, (update - self.ramp_steps) / max(1, updates - 1 - self.ramp_steps))
        if self.schedule == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.lr + (self.end - self.lr) * share

    def step(
        self,
        params: Vector,
        moments: Vector,
        gradient: Vector,
        *,
        at: int,
        scale: float,
        update: int,
        lr: float,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Change `params` [P] and `moments` [2P: first, then second] in place for the elements that `gradient` covers.

        `gradient`: [n], the elements from `at` on. `scale` multiplies it (clipping). `update` counts from 0.
        `progress` is called after each BLOCK of them.
        """
        for start in range(0, len(gradient), BLOCK):
            piece = gradient[start : start + BLOCK]
            first = slice(at + start, at + start + len(piece))
            second = slice(first.start + len(params), first.stop + len(params))
            self._step(params[first], moments[first], moments[second], piece, scale, update + 1, lr)
            progress()

    def _step(self, p: Vector, m: Vector, v: Vector, g: Vector, scale: float, count: int, lr: float) -> None:
        f32 = np.float32
        beta1, beta2 = self.betas
        g = g * f32(scale)
        m *= f32(beta1)
        m += g * f32(1 - beta1)
        v *= f32(beta2)
        np.multiply(g, g, out=g)
        g *= f32(1 - beta2)
        v += g
        if self.weight_decay:
            p *= f32(1 - lr * self.weight_decay)
        np.sqrt(v, out=g)
        g *= f32(1 / math.sqrt(1 - beta2**count))
        g += f32(self.eps)
        np.divide(m, g, out=g)
        g *= f32(lr / (1 - beta1**count))
        p -= g
