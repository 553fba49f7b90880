"""AdamW (arXiv 1711.05101) over flat float32 vectors, and its learning rate as a function of the update's number.

Only additions, multiplications, divisions and square roots, each rounded once: any slicing gives the same bits, and
so does any machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .accumulate import Vector

BLOCK = 1 << 16  # elements worked on at once, so that a block's vectors stay in the cache


class Parts(NamedTuple):
    """What the optimizer keeps of the same elements: parameters, first and second moments, each [n] float32."""

    params: Vector
    first: Vector
    second: Vector


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory for what one thread computes on the way."""

    first: Vector = field(default_factory=lambda: np.empty(BLOCK, np.float32))
    second: Vector = field(default_factory=lambda: np.empty(BLOCK, np.float32))


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
        self, old: Parts, gradient: Vector, new: Parts, *, scale: float, update: int, lr: float, scratch: Scratch
    ) -> None:
        """Write into `new` what the update number `update` (from 0) makes of `old`; all are of the same [n] elements,
        and `old` stays as it is unless it lies where `new` does. `scale` multiplies `gradient` (clipping)."""
        for start in range(0, len(gradient), BLOCK):
            span = slice(start, start + BLOCK)
            self._step(Parts(*(each[span] for each in old)), gradient[span], new, span, scale, update + 1, lr, scratch)

    def _step(
        self, old: Parts, g: Vector, new: Parts, span: slice, scale: float, count: int, lr: float, scratch: Scratch
    ) -> None:
        """Each line one operation an element, rounded once; which lines there are decides the bits of all weights."""
        f32 = np.float32
        beta1, beta2 = self.betas
        p, m, v = new.params[span], new.first[span], new.second[span]
        scaled, part = scratch.first[: len(g)], scratch.second[: len(g)]
        np.multiply(g, f32(scale), out=scaled)
        np.multiply(scaled, f32(1 - beta1), out=part)
        np.multiply(old.first, f32(beta1), out=m)
        m += part
        np.multiply(scaled, scaled, out=scaled)
        scaled *= f32(1 - beta2)
        np.multiply(old.second, f32(beta2), out=v)
        v += scaled
        np.sqrt(v, out=part)
        part *= f32(1 / math.sqrt(1 - beta2**count))
        part += f32(self.eps)
        np.divide(m, part, out=part)
        part *= f32(lr / (1 - beta1**count))
        if self.weight_decay:
            np.multiply(old.params, f32(1 - lr * self.weight_decay), out=p)
            p -= part
        else:
            np.subtract(old.params, part, out=p)
