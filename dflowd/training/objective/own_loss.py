"""A loss of the user's own, in a file beside the spec: as those of dflowd/algorithms/losses, with settings by name.

    def loss(tokens, **args) -> Tensor | tuple[Tensor, dict[str, float | Tensor]]

It runs in the engine, beside autograd, and not in a worker: one that ends the process costs the engine its call. What
it raises ends the run, with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dflow_protocols.metrics import OWN
from dflow_protocols.pipeline.grammar.shape import NAME, NAME_FORM
from dflowd.algorithms.registry import Loss
from dflowd.algorithms.terms.tokens import Sums, Tokens
from dflowd.jobs.failures import UserError


def own_loss(function: Callable[..., Any], name: str, stage: str) -> Loss:
    """The user's function as the losses of the registry are called. It raises UserError, of the stage."""

    def loss(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
        try:
            given = function(tokens, **settings["args"])
        except UserError as error:
            raise UserError(str(error), stage) from error
        found, figures = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
        if not isinstance(found, Tensor) or found.shape != () or not found.requires_grad:
            what = (
                f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            )
            hint = "it has to give the sum over its tokens, a tensor of shape [] that follows from `tokens.logp`"
            raise UserError(f"{name} gave {what}; {hint}", stage)
        return found, _sums(figures, name, stage)

    return loss


def _sums(figures: Any, name: str, stage: str) -> Sums:
    found: Sums = {}
    for key, value in figures.items() if isinstance(figures, Mapping) else ((None, None),):
        if not isinstance(key, str) or not re.fullmatch(NAME, key):
            raise UserError(f"{name} gave figures by `{key}`; a name is {NAME_FORM}", stage)
        try:
            found[f"{OWN}{key}"] = torch.as_tensor(value).detach().double().reshape(())
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name} gave a `{key}` that is no number", stage) from error
    return found
