"""What a sampler's other arithmetic does to a policy gradient, and what is done about it.

A sampler is another program, or computes in another dtype, than the training: the tokens that it draws by mu are not
drawn by the policy that training computes for the same weights, pi. The gradient is unbiased with each token's share
times pi / mu, whose variance is bounded by a bound on that ratio: truncated (V-trace of IMPALA, arXiv 1802.01561, eq.
1), or cut to a band (IcePop, arXiv 2510.18855). By completion it is the geometric mean over its tokens (GSPO, arXiv
2507.18071, eq. 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import exp

from .completions import mean_of_completion
from .kl import k3
from .ratio import log_ratio
from .tokens import Sums, Tokens


def correct(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tokens, Sums]:
    """The tokens with their shares corrected, and figures of how far sampler and training are apart.

    `settings`: of the stage's `correction`, empty for none. pi is of the version that sampled: what a `logprob` stage
    of the trained model found, else this very pass: of that version as long as a step has one update and rollouts are
    not behind. Where they are (`lag`) it is the newest one, so the share makes up for the way from there as well, and
    the loss's own ratio is 1.
    """
    sampled = tokens["sampled_logprob"]
    trained = tokens.given.get("old_logprob", tokens.logp.detach())
    apart = log_ratio(trained, sampled)
    figures: Sums = {
        "mismatch_sum": apart.abs().double().sum(),
        "mismatch_max": apart.abs().max().double(),
        "mismatch_kl_sum": k3(sampled, trained).double().sum(),
        "mismatch_count": len(apart),
    }
    kind = settings.get("kind", "none")
    if kind == "none":
        return tokens, figures
    ratio = exp(apart if settings["level"] == "token" else mean_of_completion(apart, tokens))
    is_in = (ratio <= settings["high"]) & (ratio >= settings.get("low", 0.0))
    share = {"truncate": ratio.clamp(max=settings["high"]), "mask": is_in.float(), "band": ratio * is_in}[kind]
    figures["corrected"] = (~is_in).sum().double()
    given = {**tokens.given, "old_logprob": trained, "weight": tokens["weight"] * share}
    return replace(tokens, given=given), figures
