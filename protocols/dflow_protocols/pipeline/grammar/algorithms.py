"""Algorithms that a spec may name: what each reads, its settings, and what its sum is divided by.

Tables only. Their functions are `ADVANTAGES` and `LOSSES` of dflowd/algorithms/registry.py; a test holds both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from .shape import Flag, Free, Items, Kinds, Number, Reader, Section, Shape, Text

Counts: TypeAlias = Iterable[tuple[int, int]]
"""(trained tokens, trained completions) of each group of a step"""

DIVISORS: Mapping[str, Callable[[Counts, int], int]] = {
    "tokens": lambda groups, most: sum(tokens for tokens, _ in groups),
    "samples": lambda groups, most: sum(samples for _, samples in groups),
    "constant": lambda groups, most: most,
}
"""What a step's summed loss is divided by: a function of its groups and of the tokens that it has `most`: as if every
completion that the spec asks for were as long as it may be, whatever was dropped."""


@dataclass(frozen=True, slots=True)
class Advantage:
    """How much better it went than was to be expected. Settings above 0 may ask for more than it `reads` beside the
    rollout and its reward: `asks`."""

    about: str
    config: Mapping[str, Shape] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    asks: Mapping[str, str] = field(default_factory=dict)  # setting -> output
    writes: tuple[str, ...] = ("advantage",)
    compares: bool = True  # the completions of a group, so that those of one that are alike teach nothing
    selects: bool = False  # some of a group's completions, among those that may be trained on
    is_rewarded: bool = True  # whether it goes by a reward
    is_of_turns: bool = False  # whether it goes by what an environment gave for each turn of a conversation
    makes_pairs: bool = False  # 1 for one completion of a group and -1 for another, and no number for the others

    def outputs(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What it cannot do without. `settings`: as written, not yet checked."""
        return _needed(self.reads, self.asks, settings)


@dataclass(frozen=True, slots=True)
class Loss:
    """A sum over tokens. Settings above 0 may ask for more columns than it `reads` in any case: `asks`."""

    about: str
    divisor: Callable[[Mapping[str, Any]], str]  # by its settings
    reads: tuple[str, ...] = ()
    asks: Mapping[str, str] = field(default_factory=dict)  # setting -> column
    config: Mapping[str, Shape] = field(default_factory=dict)
    head: str = ""  # of the model that it trains: one of HEADS; empty: a language model's
    is_of_pairs: bool = False  # whether it weighs two completions of a group against each other

    def columns(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What it cannot do without. `settings`: as written, not yet checked."""
        return _needed(self.reads, self.asks, settings)


def _needed(reads: tuple[str, ...], asks: Mapping[str, str], settings: Mapping[str, Any]) -> tuple[str, ...]:
    return (*reads, *(output for key, output in asks.items() if (settings.get(key) or 0) > 0))


HEADS = ("value",)
"""What a model may have in place of a language model's head. `value`: one number a token: what is still to come, to a
critic; how good what was said is, to a reward model, which is asked at the last token."""


KL_KINDS: Mapping[str, str] = {
    "k1": "the difference of log-probabilities",
    "k2": "half of its square",
    "k3": "never negative, without bias",
    "k3_unbiased": "its gradient without bias as well, behind several updates too (arXiv 2512.02556)",
}
"""Estimators of the KL divergence (Schulman, 2020)."""


def _kinds(*names: str) -> str:
    return f"its estimator; {'; '.join(f'{name}: {KL_KINDS[name]}' for name in names)}"


_WHITEN = Flag(
    "take the mean of the whole step's advantages off, and divide by their deviation, both over its trained tokens "
    "(arXiv 2501.03262)",
    False,
    unwritten=True,
)

KL_HORIZON = 10_000  # completions, as in the code of arXiv 1909.08593

_ADAPTIVE: Mapping[str, Shape] = {
    "kl_target": Number(
        "nats a token that the divergence is to have: `kl` is where a weight begins that follows it from step to step "
        "(arXiv 1909.08593); absent: it stays",
        None,
        above=0,
        unwritten=True,
    ),
    "kl_horizon": Number(
        "completions in which that weight moves by the share that the divergence is off, by a fifth at most",
        KL_HORIZON,
        integer=True,
        at_least=1,
        unwritten=True,
    ),
}

_GAMMA = Number("what a reward one token later counts", 1.0, at_least=0, at_most=1)
_PAID: Mapping[str, Shape] = {
    "kl": Number("weight of the KL divergence from a `logprob` stage's model in the reward", 0.0, at_least=0),
    "kl_kind": Text(_kinds("k1", "k2", "k3"), "k1", choices=("k1", "k2", "k3")),
    **_ADAPTIVE,
}
_PAID_UNWRITTEN: Mapping[str, Shape] = {key: replace(shape, unwritten=True) for key, shape in _PAID.items()}

ADVANTAGES: Mapping[str, Advantage] = {
    "grpo": Advantage(
        "the group's mean is taken off (arXiv 2402.03300)",
        {
            "scale": Text("what the difference is divided by", "std", choices=("std", "none")),
            "ddof": Number(
                "0: the deviation is the group's own; 1: Bessel's correction, as TRL and verl have it",
                0,
                integer=True,
                at_least=0,
                at_most=1,
                unwritten=True,
            ),
            "whiten": _WHITEN,
            **_PAID_UNWRITTEN,
        },
        asks={"kl": "logprob"},
    ),
    "rloo": Advantage(
        "the mean of the group's other completions is taken off (arXiv 2402.14740)",
        {"whiten": _WHITEN, **_PAID_UNWRITTEN},
        asks={"kl": "logprob"},
    ),
    "reinforce": Advantage(
        "of each token what came from it on, without a baseline (REINFORCE++, arXiv 2501.03262)",
        {"gamma": _GAMMA, **_PAID, "whiten": _WHITEN},
        asks={"kl": "logprob"},
        compares=False,
    ),
    "best": Advantage(
        "1 for a group's best completions, which alone are trained on (RFT, arXiv 2308.01825)",
        {
            "keep": Number("completions of a group that are kept at most; absent: all", None, integer=True, at_least=1),
            "above": Number("what a kept one has earned more than; absent: it may have earned anything", None),
        },
        selects=True,
    ),
    "pairs": Advantage(
        "1 for a group's best completion and -1 for its worst, which alone are trained on (arXiv 2402.04792)",
        selects=True,
        makes_pairs=True,
    ),
    "turns": Advantage(
        "of each turn of a conversation what came from it on, less the mean of the group's turns of that number (arXiv "
        "2505.11821)",
        {
            "gamma": Number("what a reward one turn later counts", 1.0, at_least=0, at_most=1),
            "scale": Text("what the difference is divided by", "std", choices=("std", "none")),
            "whiten": _WHITEN,
        },
        compares=False,
        is_rewarded=False,
        is_of_turns=True,
    ),
    "distill": Advantage(
        "of each token how much likelier a `logprob` stage's model, the teacher, finds it (GKD, arXiv 2306.13649)",
        {"kl": Number("weight of that divergence", 1.0, above=0)},
        reads=("logprob",),
        compares=False,
        is_rewarded=False,
    ),
    "gae": Advantage(
        "generalized advantage estimation: of each token, by a critic's values (arXiv 1506.02438)",
        {
            "gamma": _GAMMA,
            "lam": Number("0: values decide, one token ahead; 1: what came decides", 0.95, at_least=0, at_most=1),
            **_PAID,
            "whiten": _WHITEN,
        },
        reads=("value",),
        asks={"kl": "logprob"},
        writes=("advantage", "return"),
        compares=False,
    ),
}

OWN_ADVANTAGE = Advantage(
    "a function of one's own: of a group, a number for each completion",
    {
        "args": Free("keyword arguments of the function", {}),
        "timeout_s": Number(
            "seconds that one call of the function may take, for a group", 30.0, above=0, at_most=86400, unwritten=True
        ),
        "whiten": _WHITEN,
    },
)


def advantage_named(method: str) -> Advantage | None:
    """What a spec may name by `method`; None for what is neither one of ADVANTAGES nor a function."""
    return ADVANTAGES.get(method) or (OWN_ADVANTAGE if ":" in method else None)


_CLIP = Items(
    "how far the probability ratio may fall below and rise above 1 before a token's gain is cut",
    Number("a distance from 1", at_least=0),
    (0.2, 0.28),
    count=2,
)

_REGULARIZED: Mapping[str, Shape] = {
    "kl": Number("weight of the KL divergence from a `logprob` stage's model", 0.0, at_least=0),
    "kl_kind": Text(
        _kinds(*KL_KINDS),
        "k3",
        choices=tuple(KL_KINDS),
        unwritten=True,
    ),
    **_ADAPTIVE,
    "entropy": Number("weight of the policy's entropy, which is rewarded", 0.0, at_least=0, unwritten=True),
}

_CLIPPED: Mapping[str, Shape] = {
    "clip": _CLIP,
    "dual_clip": Number(
        "the most that the ratio counts where a completion was worse than was to be expected (arXiv 1912.09729), such "
        "as 3; absent: however much it is",
        None,
        above=1,
        unwritten=True,
    ),
    **_REGULARIZED,
}

_GSPO_CLIP = Items(
    "how far a sequence's ratio may fall below and rise above 1 before its gain is cut",
    Number("a distance from 1", at_least=0),
    (3e-4, 4e-4),
    count=2,
)

_SHARE = Number("of a group's tokens that are picked", 2e-4, above=0, at_most=1)

_SYMMETRIC_CLIP = Items(_CLIP.about, _CLIP.item, (0.2, 0.2), count=2)

_GMPO_CLIP = Items(
    "how far the logarithm of a token's probability ratio may fall and rise before it is cut",
    Number("nats", at_least=0),
    (0.4, 0.4),
    count=2,
)


def _policy(about: str, divisor: str | Callable[[Mapping[str, Any]], str], config: Mapping[str, Shape]) -> Loss:
    """A policy-gradient loss, regularized or not."""
    by = divisor if callable(divisor) else lambda settings: divisor
    return Loss(about, by, reads=("advantage",), asks={"kl": "logprob"}, config=config)


LOSSES: Mapping[str, Loss] = {
    "grpo": _policy(
        "clipped gains over the step's tokens, or over its sequences (arXiv 2402.03300, 2503.14476)",
        lambda settings: "tokens" if settings["mean"] == "token" else "samples",
        {
            "mean": Text("what counts alike: every token, or every sequence", "token", choices=("token", "sequence")),
            **_CLIPPED,
        },
    ),
    "dr_grpo": _policy(
        "clipped gains over the most tokens that a step may have (arXiv 2503.20783)", "constant", _CLIPPED
    ),
    "gspo": _policy(
        "clipped gains of whole sequences, by the geometric mean of their tokens' ratios (arXiv 2507.18071)",
        "samples",
        {"clip": _GSPO_CLIP, **_REGULARIZED},
    ),
    "gmpo": _policy(
        "gains of whole sequences, by the geometric mean of their tokens' clipped ratios (arXiv 2507.20673)",
        "samples",
        {"clip": _GMPO_CLIP, **_REGULARIZED},
    ),
    "cispo": _policy(
        "the policy gradient by a bounded ratio, over the step's tokens (arXiv 2506.13585)",
        "tokens",
        {"high": Number("the most that a token's share is multiplied by", 5.0, at_least=1), **_REGULARIZED},
    ),
    "cpgd": _policy(
        "the clipped policy gradient, with a pull back to the policy that sampled (arXiv 2505.12504)",
        "tokens",
        {
            "clip": _SYMMETRIC_CLIP,
            "drift": Number("weight of the KL divergence from the policy that sampled", 0.001, at_least=0),
            **_REGULARIZED,
        },
    ),
    "clip_cov": _policy(
        "clipped gains, without some of the tokens that would take the most entropy (arXiv 2505.22617)",
        "tokens",
        {
            "clip": _SYMMETRIC_CLIP,
            "share": _SHARE,
            "bounds": Items(
                "of the covariance of log-probability and advantage, between which tokens are drawn",
                Number("a covariance"),
                (1.0, 5.0),
                count=2,
            ),
            **_REGULARIZED,
        },
    ),
    "kl_cov": _policy(
        "gains without a clip; those of the tokens that would take the most entropy are held back (arXiv 2505.22617)",
        "tokens",
        {
            "share": _SHARE,
            "penalty": Number("weight of what holds them back, the distance from what was sampled", 1.0, at_least=0),
            **_REGULARIZED,
        },
    ),
    "gpg": _policy("the plain policy gradient over the step's tokens (arXiv 2504.02546)", "tokens", _REGULARIZED),
    "ppo": _policy(
        "clipped gains over the step's tokens, cut as far below 1 as above (arXiv 1707.06347)",
        "tokens",
        {**_CLIPPED, "clip": _SYMMETRIC_CLIP},
    ),
    "value": Loss(
        "half the squared distance of a critic's values from what came, over the step's tokens (arXiv 1707.06347)",
        divisor=lambda settings: "tokens",
        reads=("value", "return"),
        config={
            "value_clip": Number(
                "how far a value may move from the one that the advantages went by before it gains nothing more; "
                "absent: as far as it likes",
                None,
                above=0,
            ),
        },
        head="value",
    ),
    "dpo": Loss(
        "how little likelier a pair's better completion has become than its worse one, against a reference, over the "
        "step's pairs (arXiv 2305.18290)",
        divisor=lambda settings: "samples",
        reads=("advantage", "logprob"),
        config={
            "beta": Number("how far a preference may lead from the reference: less is farther", 0.1, above=0),
            "nll": Number(
                "weight of the better completion's cross-entropy, the mean over its tokens: it stays likely (RPO, "
                "arXiv 2404.19733)",
                0.0,
                at_least=0,
                unwritten=True,
            ),
        },
        is_of_pairs=True,
    ),
    "bradley_terry": Loss(
        "how unlikely a reward model finds it that of two completions of a prompt the one with more advantage is the "
        "better one (arXiv 2203.02155)",
        divisor=lambda settings: "samples",
        reads=("advantage",),
        head="value",
        is_of_pairs=True,
    ),
    "cross_entropy": Loss("of demonstrations, over the step's tokens", divisor=lambda settings: "tokens"),
}

OWN_LOSS = Loss(
    "a function of one's own: of a micro-batch's tokens, a sum over them",
    divisor=lambda settings: str(settings["divisor"]),
    reads=("advantage",),
    config={
        "divisor": Text(
            "what the step's sum is divided by: its trained tokens, its trained completions, or the most tokens that "
            "it may have",
            "tokens",
            choices=tuple(DIVISORS),
        ),
        "args": Free("keyword arguments of the function", {}),
        "entropy": Flag("let a gradient go through the tokens' `entropy`, which costs memory and time", False),
    },
)


def loss_named(kind: str) -> Loss | None:
    """What a spec may name by `kind`; None for what is neither one of LOSSES nor a function."""
    return LOSSES.get(kind) or (OWN_LOSS if ":" in kind else None)


def divisor_of(kind: str, settings: Mapping[str, Any]) -> str:
    """One of DIVISORS, by a loss and its settings, both checked."""
    loss = loss_named(kind)
    assert loss is not None, f"validation lets no loss `{kind}` pass"
    return loss.divisor(settings)


_LEVEL = Text(
    "whose probability is compared: each token's, or each completion's, as the geometric mean over its tokens",
    "token",
    choices=("token", "sequence"),
)
_LOW = Number("the least ratio that counts as alike", 0.5, at_least=0, at_most=1)

CORRECTIONS: Mapping[str, Mapping[str, Shape]] = {
    "none": {},
    "truncate": {"level": _LEVEL, "high": Number("the most that a share is multiplied by", 2.0, at_least=1)},
    "mask": {"level": _LEVEL, "low": _LOW, "high": Number("the largest ratio that counts as alike", 2.0, at_least=1)},
    "band": {"level": _LEVEL, "low": _LOW, "high": Number("the largest ratio that counts as alike", 5.0, at_least=1)},
}
"""What is done about a sampler whose probabilities are not those that training computes, with its settings. A share of
the loss is multiplied by the ratio of the second to the first, at most `high`; by 1 within the bounds and 0 outside;
or by the ratio within them and 0 outside."""

CORRECTION = Kinds(
    "what makes up for a sampler whose probabilities are not those that training computes; absent: `truncate` where "
    "the two are of different engines or dtypes, or rollouts of whatever version there is (`async`), else `none`",
    "kind",
    Text(
        "truncate: a token's share times the ratio of both, up to a bound (IMPALA, arXiv 1802.01561); mask: 0 where "
        "the ratio is out of bounds; band: the ratio within its bounds and 0 outside (IcePop, arXiv 2510.18855)",
        "truncate",
        choices=tuple(CORRECTIONS),
    ),
    CORRECTIONS,
    default=None,
    unwritten=True,
)

ADAMW = Section(
    "AdamW (arXiv 1711.05101)",
    {
        "lr": Number("learning rate after the ramp", above=0, at_most=1),
        "end": Number("learning rate of the last update; absent: stays at `lr`", None, at_least=0, at_most=1),
        "ramp_steps": Number("updates until `lr` is reached, in equal steps", 0, integer=True, at_least=0),
        "schedule": Text("how `lr` falls to `end`", "linear", choices=("linear", "cosine")),
        "betas": Items("decay of both moments", Number("a decay", at_least=0, below=1), (0.9, 0.999), count=2),
        "eps": Number("added to the denominator", 1e-8, above=0),
        "weight_decay": Number("decoupled, times the learning rate", 0.0, at_least=0),
    },
)


def truncated() -> dict[str, Any]:
    """The correction of a training that says nothing of it and whose sampler computes otherwise."""
    found: dict[str, Any] = Reader({}).read(CORRECTION, {}, "")
    return found
