"""What any policy loss may have beside its gain: a divergence from a reference that is taken off, and the entropy of
the policy, which is added so that it goes on exploring (A3C, arXiv 1602.01783, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .kl import divergence, k3
from .tokens import Sums, Tokens


def regularized(gain: Tensor, tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """What each token gains, [tokens], less `kl` times its divergence from the reference, where there is one, and with
    `entropy` times its entropy; and figures of the divergence (by k3 in any case)."""
    reference = tokens.find("logprob")
    figures: Sums = {} if reference is None else {"kl_sum": k3(tokens.logp.detach(), reference).double().sum()}
    if reference is not None and settings["kl"]:
        kind = settings.get("kl_kind", "k3")
        gain = gain - settings["kl"] * divergence(kind, tokens.logp, reference, tokens["old_logprob"])
    if settings.get("entropy"):
        assert tokens.entropy is not None, "who trains by an entropy has computed it"
        gain = gain + settings["entropy"] * tokens.entropy
    return gain, figures
