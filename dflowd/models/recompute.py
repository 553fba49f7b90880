"""Activations of a layer made again in the backward pass (arXiv 1604.06174), so that one layer's live at a time.

transformers marks the layers where that is right. Its own switch works on a model in training mode alone, in which the
layers drop out; a policy never is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


class Recompute:
    """Whether the layers of `body` forget their activations. They keep them until `turn` says otherwise."""

    def __init__(self, body: nn.Module) -> None:
        self._is_on = False
        layers = [layer for layer in body.modules() if isinstance(layer, GradientCheckpointingLayer)]
        self.is_possible = bool(layers)
        for layer in layers:
            vars(layer)["forward"] = self._forgetting(layer.forward)

    def turn(self, is_on: bool) -> None:
        self._is_on = is_on

    def _forgetting(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not (self._is_on and torch.is_grad_enabled()):
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

        return run
