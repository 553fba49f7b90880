"""Signatures of the built-in operators: what each reads and writes, and the keys of its config.

An output's name says what it is: whoever reads `reward` reads the output `reward` of the nearest stage before it that
writes one, a user's own operator included. Tables only: validation, defaults, the JSON Schema and the reference are
made from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .algorithms import (
    ADAMW,
    ADVANTAGES,
    CORRECTION,
    LOSSES,
    OWN_ADVANTAGE,
    OWN_LOSS,
    Advantage,
    advantage_named,
    loss_named,
)
from .columns import COLUMNS
from .scoring import ENVIRONMENT, FUNCTION_FORM, FUNCTION_PATTERN, SCORING
from .shape import NAME, NAME_FORM, Flag, Free, Items, Kinds, Named, Number, Section, Shape, Text, Variants

DEFAULT_REWARD = "dflowd.operators.reward:exact_match"
MAX_PARTITIONS = 2048  # a manifest names every stage of every partition, eight of them in one list
MAX_LEAVES = 1024
DTYPES = ("float32", "bfloat16")
GRADIENT_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2}  # of an element
EVALUATED_GROUPS = 128  # a partition of an evaluation, unless the spec says how many partitions
_NONE = Section("", {})


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a stage makes partitions of its own, with which a chain begins. The fields name keys of its config."""

    groups: str  # how many groups a step has
    entries: str  # how many different entries of its data it takes
    groups_each: int | None = None  # of a partition, where the spec says no number of partitions; None: see defaults
    is_read: bool = False  # whether stages after it may read what it makes
    width: int = 1  # completions of a group, where its config has no `group`


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a stage trains on. `samples` and `groups` name outputs, its own or such as it reads."""

    samples: str  # holds the tokens
    groups: str  # whose records say which groups are trained on
    loss: str  # of LOSSES, where the stage's config names no other


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator as the rest of the pipeline sees it: whoever treats stages differently asks here, not for names."""

    about: str
    reads: tuple[str, ...] = ()
    may_read: tuple[str, ...] = ()  # read where a stage before writes it and something asks for it
    heeds: tuple[str, ...] = ()  # read wherever stages before write it of the same rollout, from each of them
    writes: tuple[str, ...] = ()
    scope: str = "group"  # what it looks at in one piece
    effect: str = "pure"  # pure: of its inputs; seeded: of its inputs and the spec's seed
    model: Literal["", "tokenizer", "parameters"] = ""  # what it takes of a model, if it needs one
    config: Section | Kinds = _NONE
    begins: Beginning | None = None
    trains: Lesson | None = None
    samples: bool = False  # it has a model say tokens, one after the other
    continues: bool = False  # it goes on with the completions that it reads
    evaluates: bool = False  # measures a version: also the final one, and no training waits for it
    prefers: bool = False  # its data says which of two answers is the better one, and nobody sampled them
    scores: bool = False  # its config's `function` is called with completions
    sifts: bool = False  # its config's `function` is called with groups, and says which are kept
    compares: str = ""  # the output that it weighs; its config's `rewards` add several of them up
    methods: Mapping[str, Advantage] = field(default_factory=dict)  # by its config's `method`, or one of the user's own
    head: str = ""  # of its model: one of HEADS; empty: a language model's, or as the loss says
    counts: bool = False  # its figures count samples of its own, so those of several stages add up

    @property
    def leaves_out(self) -> bool:
        """Whether it says that groups are not trained on."""
        return self.sifts or bool(self.compares)

    @property
    def is_on_partitions(self) -> bool:
        """Whether its stages are parts of chains; a training that begins none works on what chains made."""
        return self.trains is None or self.begins is not None


def _count(about: str, default: object = "\0required", at_most: float | None = None) -> Number:
    return Number(about, default, integer=True, at_least=1, at_most=at_most)


_DATA = Text("a name under `data`", pattern=NAME, form=NAME_FORM)
_PARTITIONS = "tasks that the step's prompts are dealt in, as contiguous runs; absent: 8, or one for each 128 evaluated"
_FUNCTION = Text("scores a completion: `module:function`", DEFAULT_REWARD, pattern=FUNCTION_PATTERN, form=FUNCTION_FORM)

_TRAINING: Mapping[str, Shape] = {
    "epochs": Number(
        "passes over what a step's partitions give: each is an update, or one for each of its mini-batches",
        1,
        integer=True,
        at_least=1,
        at_most=64,
        unwritten=True,
    ),
    "minibatches": Number(
        "parts that an epoch cuts the step's groups into, in an order of its own; an update is made by each",
        1,
        integer=True,
        at_least=1,
        at_most=64,
        unwritten=True,
    ),
    "leaves": _count(
        "virtual ranks that a fixed tree sums, a power of two; absent: as many as `partitions` feed, at most 64",
        None,
        MAX_LEAVES,
    ),
    "clip_norm": Number("gradients of a larger global norm are scaled down to it; absent: never", None, above=0),
    "micro_batch_tokens": _count("tokens of one forward and backward pass", 8192),
    "compute": Text(
        "of the forward and backward pass; parameters, moments and sums of gradients are float32 in any case",
        "float32",
        choices=DTYPES,
        unwritten=True,
    ),
    "gradient": Text(
        "in which leaves and blocks of them are kept and sent: with bfloat16 in half the bytes, each rounded to the "
        "nearest as it is made; what is added, what is summed within a leaf, and slices are float32 in any case",
        "float32",
        choices=tuple(GRADIENT_BYTES),
        unwritten=True,
    ),
    "on_nonfinite": Text(
        "what a loss or gradient that is not finite does: end the run, or leave parameters and moments as they are",
        "fail",
        choices=("fail", "skip"),
        unwritten=True,
    ),
    "gradient_checkpointing": Flag(
        "make a layer's activations again in the backward pass instead of keeping them; absent: on a GPU",
        None,
        unwritten=True,
    ),
    "optimizer": Variants("how gradients change weights", {"adamw": Section("", {"adamw": ADAMW})}),
}

_POLICY_LOSSES = {name: loss for name, loss in LOSSES.items() if loss.reads}
_LOSS = Kinds(
    "what is minimised",
    "kind",
    Text(
        "; ".join(f"{name}: {loss.about}" for name, loss in _POLICY_LOSSES.items())
        + f"; or {FUNCTION_FORM}: {OWN_LOSS.about}",
        "grpo",
        choices=tuple(_POLICY_LOSSES),
        pattern=FUNCTION_PATTERN,
        form=FUNCTION_FORM,
        unwritten=True,
    ),
    {name: loss.config for name, loss in _POLICY_LOSSES.items()},
    default={},
    own=OWN_LOSS.config,
)

_METHOD = Text(
    "; ".join(f"{name}: {advantage.about}" for name, advantage in ADVANTAGES.items())
    + f"; or {FUNCTION_FORM}: {OWN_ADVANTAGE.about}",
    "grpo",
    choices=tuple(ADVANTAGES),
    pattern=FUNCTION_PATTERN,
    form=FUNCTION_FORM,
)

_SAMPLING: Mapping[str, Shape] = {
    "temperature": Number("of sampling", 1.0, above=0, at_most=100),
    "top_p": Number("sample from the smallest set of tokens with this much probability", 1.0, above=0, at_most=1),
}
_SAID: Mapping[str, Shape] = {
    "max_tokens": _count("a completion that is longer is cut off"),
    "stop": Items("texts that end a completion, beside the end-of-sequence token", Text("a text"), ()),
}
_SEGMENT = _count("tokens after which a completion that is not done waits for a `continue` stage")
HEARD = "{completion}"  # in a reply's template: what it replies to

OPERATORS: Mapping[str, Operator] = {
    "generate": Operator(
        "samples a group of completions for each prompt",
        writes=("rollout",),
        effect="seeded",
        model="parameters",
        samples=True,
        begins=Beginning("prompts", "prompts", is_read=True),
        counts=True,
        config=Section(
            "",
            {
                "data": _DATA,
                "prompts": _count("prompts a step"),
                "group": _count("completions a prompt", 8),
                "partitions": _count(_PARTITIONS, None, MAX_PARTITIONS),
                **_SAMPLING,
                **_SAID,
                "segment_tokens": replace(
                    _SEGMENT, about=f"{_SEGMENT.about}; absent: none does", default=None, unwritten=True
                ),
                "environment": ENVIRONMENT,
            },
        ),
    ),
    "preferences": Operator(
        "takes pairs of answers from the data, which says which of two is the better one",
        writes=("rollout", "advantage"),
        effect="seeded",
        model="tokenizer",
        begins=Beginning("prompts", "prompts", is_read=True, width=2),
        prefers=True,
        config=Section(
            "",
            {
                "data": replace(_DATA, about=f"{_DATA.about}, of rows with `rejected`"),
                "prompts": _count("prompts a step, each with two answers"),
                "partitions": _count(_PARTITIONS, None, MAX_PARTITIONS),
                "max_tokens": _count("tokens of an answer, its end included; a longer one is refused"),
            },
        ),
    ),
    "continue": Operator(
        "goes on with completions that are not done, by as many tokens again; `async.partial` makes these stages",
        scope="sample",
        reads=("rollout",),
        writes=("rollout",),
        effect="seeded",
        model="parameters",
        samples=True,
        continues=True,
        config=Section("", {**_SAMPLING, "max_tokens": _SAID["max_tokens"], "segment_tokens": _SEGMENT}),
    ),
    "reply": Operator(
        "samples a completion that goes on from another one: a second model's answer to what the first one said",
        scope="sample",
        reads=("rollout",),
        writes=("rollout",),
        effect="seeded",
        model="parameters",
        samples=True,
        counts=True,
        config=Section(
            "",
            {
                "template": Text(
                    f"what is put to the model: `{{prompt}}` is the entry's, `{HEARD}` what was said last; what is "
                    "in front of that is made into tokens by itself",
                    f"{{prompt}}\n{HEARD}\n",
                    pattern=r"[\s\S]*\S[\s\S]*\{completion\}[\s\S]*",
                    form=f"a text with `{HEARD}` in it, and something in front of that",
                ),
                **_SAMPLING,
                **_SAID,
            },
        ),
    ),
    "reward": Operator(
        "scores each completion by a function",
        scope="sample",
        reads=("rollout",),
        writes=("reward",),
        scores=True,
        config=Section("", {"function": _FUNCTION, "args": Free("keyword arguments of the function", {}), **SCORING}),
    ),
    "reward_model": Operator(
        "scores each completion by a model with a value head, at its last token",
        scope="sample",
        reads=("rollout",),
        writes=("reward",),
        model="parameters",
        head="value",
    ),
    "logprob": Operator(
        "scores the sampled tokens by a model, such as a frozen reference",
        scope="sample",
        reads=("rollout",),
        writes=("logprob",),
        model="parameters",
    ),
    "value": Operator(
        "estimates what is still to come before each token, by a model with a value head",
        scope="sample",
        reads=("rollout",),
        writes=("value",),
        model="parameters",
        head="value",
    ),
    "filter": Operator(
        "leaves groups out of training by a condition: `advantage` stages after it read what it keeps of their rollout",
        reads=("rollout", "reward"),
        writes=("kept",),
        sifts=True,
        counts=True,
        config=Section(
            "",
            {
                "function": Text("says whether a group is kept", pattern=FUNCTION_PATTERN, form=FUNCTION_FORM),
                "args": Free("keyword arguments of the function", {}),
                "timeout_s": Number(
                    "seconds that one call of `function` may take, for a group",
                    30.0,
                    above=0,
                    at_most=86400,
                    unwritten=True,
                ),
            },
        ),
    ),
    "advantage": Operator(
        "says how much better completions, or their tokens, went than was to be expected",
        reads=("rollout", "reward"),
        heeds=("kept",),
        writes=("advantage",),
        compares="reward",
        methods=ADVANTAGES,
        counts=True,
        config=Kinds(
            "",
            "method",
            _METHOD,
            {name: advantage.config for name, advantage in ADVANTAGES.items()},
            {
                "drop_flat_groups": Flag("leave groups out whose rewards are all alike: they teach nothing", False),
                "mask_truncated": Flag(
                    "leave completions out of training that `max_tokens` cut off (DAPO's overlong filtering, arXiv "
                    "2503.14476); those of their group are compared with them all the same",
                    False,
                    unwritten=True,
                ),
                "rewards": Named(
                    "weights of rewards that are added up, by the stages that write them; absent: the one it reads",
                    Number("a weight; 0: only measured"),
                    None,
                    unwritten=True,
                ),
            },
            own=OWN_ADVANTAGE.config,
        ),
    ),
    "train": Operator(
        "optimizer updates by a loss over what was sampled, of a policy or of a critic: one a step, if `epochs` and "
        "`minibatches` say nothing else",
        scope="step",
        reads=("rollout", "advantage"),
        may_read=("logprob",),
        effect="seeded",
        model="parameters",
        trains=Lesson("rollout", "advantage", "grpo"),
        config=Section("", {**_TRAINING, "loss": _LOSS, "correction": CORRECTION}),
    ),
    "sft": Operator(
        "optimizer updates by cross-entropy on demonstrations: one a step, as with `train`",
        scope="step",
        writes=("batch",),
        effect="seeded",
        model="tokenizer",
        begins=Beginning("batch", "demos"),
        trains=Lesson("batch", "batch", "cross_entropy"),
        config=Section(
            "",
            {
                "data": _DATA,
                "demos": _count("demonstrations in all, seen again and again"),
                "batch": _count("demonstrations a step"),
                "partitions": _count(_PARTITIONS, None, MAX_PARTITIONS),
                **_TRAINING,
            },
        ),
    ),
    "evaluate": Operator(
        "measures accuracy on data that is never trained on",
        scope="sample",
        writes=("evaluation",),
        effect="seeded",
        model="parameters",
        samples=True,
        begins=Beginning("count", "count", EVALUATED_GROUPS),
        evaluates=True,
        scores=True,
        counts=True,
        config=Section(
            "",
            {
                "data": Text(
                    "a name under `data`, with `.held_out` for its held-out part",
                    pattern=rf"{NAME}(\.held_out)?",
                    form="a data set's name, or `NAME.held_out`",
                ),
                "count": _count("prompts; absent: all that are held out", None),
                "partitions": _count(_PARTITIONS, None, MAX_PARTITIONS),
                "greedy": Flag("always take the likeliest token", True),
                **_SAMPLING,
                "max_tokens": _count("absent: as the `generate` stage of this model", None),
                "stop": Items(
                    "texts that end a completion; absent: as the `generate` stage of this model",
                    Text("a text"),
                    None,
                    unwritten=True,
                ),
                "environment": replace(
                    ENVIRONMENT, about=f"{ENVIRONMENT.about}; absent: as the `generate` stage of this model"
                ),
                "function": Text("absent: as the `reward` stage", None, pattern=FUNCTION_PATTERN, form=FUNCTION_FORM),
                "args": Free("keyword arguments of the function; absent: as the `reward` stage", None),
                **SCORING,
            },
        ),
    ),
}

USERS_OWN = Operator("a `module:function`; it is always given a rollout", reads=("rollout",), scope="partition")


def loss_of(lesson: Lesson, config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind and the settings of a training stage's loss. `config`: the stage's, checked or as written."""
    settings = config.get("loss") or {}
    return str(settings.get("kind") or lesson.loss), settings


def updates_of(config: Mapping[str, Any]) -> int:
    """How many updates a training stage makes in a step. `config`: the stage's, checked."""
    return int(config.get("epochs", 1)) * int(config.get("minibatches", 1))


def enough(until: float, groups: int) -> int:
    """How many groups are enough, as `rounds.until` says, where a round has so many."""
    return math.ceil(until * groups) if until <= 1 else int(until)


def gradient_bytes(config: Mapping[str, Any]) -> int:
    """Of an element of a block's gradient. `config`: the training stage's, checked."""
    return GRADIENT_BYTES[config.get("gradient", "float32")]


def reads_of(operator: Operator, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Outputs that a stage has to read: those of its operator, and what its method or its loss asks for, which is its
    columns that have no default. `config`: the stage's, checked or as written."""
    asked: tuple[str, ...] = ()
    own = operator.reads
    if (method := method_of(operator, config)) is not None:
        asked = method.outputs(config)
        own = tuple(name for name in own if method.is_rewarded or name != operator.compares)
    elif operator.trains is not None:
        kind, settings = loss_of(operator.trains, config)
        loss = loss_named(kind)
        columns = () if loss is None else loss.columns(settings)
        asked = tuple(name for name in columns if COLUMNS[name].default is None)
    return tuple(dict.fromkeys((*own, *asked)))


def writes_of(operator: Operator, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a stage of a built-in operator writes. `config`: as of `reads_of`."""
    method = method_of(operator, config)
    return operator.writes if method is None else method.writes


def method_of(operator: Operator, config: Mapping[str, Any]) -> Advantage | None:
    """None for operators that have no methods. `config`: as of `reads_of`."""
    return advantage_named(str(config.get("method"))) if operator.methods else None


def head_of(operator: Operator, config: Mapping[str, Any]) -> str:
    """What the stage's model has to have for a head: one of HEADS; empty: a language model's. `config`: as of
    `reads_of`."""
    if operator.trains is None:
        return operator.head
    loss = loss_named(loss_of(operator.trains, config)[0])
    return "" if loss is None else loss.head


def is_corrected(operator: Operator, config: Mapping[str, Any]) -> bool:
    """Whether a training stage's loss goes by how likely the sampler found its tokens, so that one which computes
    otherwise is made up for. `config`: as of `reads_of`."""
    if operator.trains is None:
        return False
    loss = loss_named(loss_of(operator.trains, config)[0])
    return loss is not None and not loss.head and not loss.is_of_pairs


def operator_of(op: str) -> Operator:
    """By what stands in a stage's `op`: a name, or a `module:function`."""
    return OPERATORS.get(op, USERS_OWN)
