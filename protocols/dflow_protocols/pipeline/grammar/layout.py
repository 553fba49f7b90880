"""Layout of a spec: its sections and their keys, but for the `config` of stages (signatures)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..recipes.catalog import RECIPES
from .algorithms import HEADS
from .engines import ENGINES, REPRODUCIBILITY
from .shape import NAME, NAME_FORM, Condition, Flag, Free, Items, Named, Number, Section, Shape, Text, Variants
from .signatures import DTYPES

PLAN_VERSION = 2  # of whatever decides bits: plan, seeds, packing, tree, sampler
MAX_STEPS = 1_000_000
MAX_LAG = 8  # versions, each of which is a copy of the parameters on every node
MAX_STALENESS = 8  # versions; of as many steps the outputs lie on the nodes
KEPT = "version_of"  # the key of a model that is a version of another one
STAGE_ID = r"[a-z][a-z0-9_]{0,31}"
STAGE_ID_FORM = "a small letter, then small letters, digits and _ (32 at most)"

_HELD_OUT = Section(
    "questions that are never trained on",
    {
        "by": Text("what is hashed to choose them", "question_lower", choices=("question", "question_lower")),
        "share": Number("share of all questions", above=0, below=1),
        "count": Number("questions evaluated on, at most", integer=True, at_least=1),
    },
    None,
)

_PROMPTS: Mapping[str, Shape] = {
    "template": Text(
        "the text that is made of a prompt; absent: the prompt, with a line break where there is no chat",
        None,
        pattern=r"[\s\S]*\{prompt\}[\s\S]*",
        form="a text with `{prompt}` in it",
    ),
    "chat": Flag("put it into the tokenizer's chat template; absent: where the tokenizer has one", None),
    "system": Text("a system's message, which comes first", None, unwritten=True),
    "template_args": Free(
        "what the chat template is told beside, such as `enable_thinking: false`", {}, unwritten=True
    ),
    "answer_prefix": Text("what every answer begins with: the model goes on from there", None, unwritten=True),
    "max_prompt_tokens": Number(
        "tokens that a prompt may have; absent: what the model's positions leave",
        None,
        integer=True,
        at_least=1,
        unwritten=True,
    ),
    "long_prompts": Text(
        "what becomes of a prompt that has more: it ends the run, is no part of the data, or loses its first tokens",
        "refuse",
        choices=("refuse", "drop", "cut_left"),
        unwritten=True,
    ),
}

_DTYPE = Text(
    "of sampling and scoring; what a model is trained in is its stage's `compute`; absent: that where `vllm` samples, "
    "else float32",
    None,
    choices=DTYPES,
)

_LORA = Section(
    "low-rank adapters are trained, and the model's own weights stay as they are (LoRA, arXiv 2106.09685)",
    {
        "rank": Number("of what an adapter adds to its layer", integer=True, at_least=1, at_most=4096),
        "alpha": Number("an adapter's part is multiplied by alpha / rank", above=0, at_most=1e6),
        "targets": Items(
            "layers with adapters, by the ends of their names, such as `q_proj`; absent: all linear ones but the head",
            Text("a layer's name, or its end after a dot"),
            None,
            at_least=1,
        ),
        "dropout": Number("0: a gradient is a function of its leaf", 0.0, at_least=0, below=1),
    },
    None,
    unwritten=True,
)

_HEAD = Text(
    "what it has in place of the language model's head; value: one number a token, for a critic; absent: nothing",
    None,
    choices=HEADS,
    unwritten=True,
)

_MODEL = Variants(
    "a model's weights at the start",
    {
        "init": Section(
            "drawn from the seed",
            {
                "init": Section(
                    "how to make them",
                    {
                        "config": Text("a transformers config file (JSON)"),
                        "tokenizer": Text("a tokenizer's folder"),
                    },
                ),
                "dtype": _DTYPE,
                "lora": _LORA,
                "head": _HEAD,
            },
        ),
        "path": Section(
            "read from a folder",
            {
                "path": Text("a Hugging Face model folder"),
                "dtype": _DTYPE,
                "lora": _LORA,
                "head": _HEAD,
            },
        ),
        KEPT: Section(
            "as another model is when a step of this run begins, such as the last of its demonstrations; it stays so",
            {
                KEPT: Text("a model that a stage trains", pattern=NAME, form=NAME_FORM),
                "at": Number("the step; no stage asks this model before it", integer=True, at_least=0),
                "dtype": _DTYPE,
            },
        ),
    },
)

_FORMATS: Mapping[str, str] = {
    "jsonl": "one JSON object a line",
    "csv": "values with commas between them, under a line of keys",
    "parquet": "rows of Parquet files",
    "arrow": "rows of Arrow files, such as `datasets` saves",
}

_DATASET = Variants(
    "a source of prompts",
    {
        "reasoning_gym": Section(
            "made by reasoning-gym",
            {
                "reasoning_gym": Text("a task's name in reasoning-gym"),
                "config": Free("the task's own settings", {}),
                **_PROMPTS,
                "held_out": _HELD_OUT,
            },
        ),
    }
    | {
        kind: Section(
            about,
            {
                kind: Text(f"{about}: the path of a file or folder, or a pattern such as `words/train-*.{kind}`"),
                "prompt": Text("the key of the prompt", "prompt"),
                "answer": Text("the key of the right answer", "answer"),
                "messages": Text(
                    "the key of a conversation, in place of `prompt`; its last turn is the answer if it is the "
                    "assistant's, unless `answer` names a key",
                    None,
                    unwritten=True,
                ),
                "rejected": Text(
                    "the key of a worse answer, for a `preferences` stage: each row is a pair then, and either answer "
                    "a text or the last turn of a conversation",
                    None,
                    unwritten=True,
                ),
                **_PROMPTS,
                "held_out": _HELD_OUT,
            },
        )
        for kind, about in _FORMATS.items()
    }
    | {
        "mix": Section(
            "several data sets as one",
            {
                "mix": Named(
                    "other data sets, by name, and how often each is drawn", Number("a weight", above=0, at_most=1e9)
                )
            },
        )
    },
)

_ROUNDS = Section(
    "sample again within the step, other prompts each round, as too few groups are trained on: of a `filter` or an "
    "`advantage`",
    {
        "until": Number(
            "groups that are enough, the first of which are trained on; at most 1: a share of the `prompts` of a round",
            above=0,
        ),
        "max": Number("rounds at most, the first one among them", integer=True, at_least=1),
    },
    None,
)

STAGE: Mapping[str, Shape] = {
    "id": Text("the stage's name", pattern=STAGE_ID, form=STAGE_ID_FORM),
    "op": Text("a built-in operator, or `module:function`"),
    "model": Text("a name under `models`", None, pattern=NAME, form=NAME_FORM),
    "reads": Items(
        'outputs it reads, as `stage.output` or `output`, `"*"` for all that stages before it made of the same '
        "completions; absent: by the operator",
        Text("an output"),
        (),
    ),
    "writes": Items("outputs of a `module:function`", Text("an output", pattern=STAGE_ID, form=STAGE_ID_FORM), ()),
    "per_token": Items(
        "of these, such as have a number for each token of a completion", Text("an output"), (), unwritten=True
    ),
    "after": Items("stages of the same partition that come first", Text("a stage"), ()),
    "scope": Text("what it looks at in one piece", None, choices=("sample", "group", "partition", "step")),
    "when": Condition("steps it runs at; absent: whenever what it reads is there", None),
    "every": Number("runs at every so many of those steps, the first included", 1, integer=True, at_least=1),
    "rounds": _ROUNDS,
    "requires": Items("what a node must offer for it: roles, `cpu` or `gpu`", Text("a word"), ()),
    "effect": Text("what running it twice does", None, choices=("pure", "seeded", "stochastic", "effectful")),
    "engine": Text(
        "what computes this stage; absent: as the pipeline says", None, choices=tuple(ENGINES), unwritten=True
    ),
    "config": Free("the operator's settings", {}),
}

TOP: Mapping[str, Shape] = {
    "name": Text(
        "the pipeline's name", pattern=r"[A-Za-z0-9][\w.-]{0,63}", form="letters, digits and _ . - (64 at most)"
    ),
    "plan_version": Number("of the rules that decide bits", PLAN_VERSION, integer=True),
    "algorithm": Text(
        "stands for the stages of an algorithm and their settings, as far as they are not written; no key of the "
        "canonical form, which has them",
        None,
        choices=tuple(sorted(RECIPES)),
        unwritten=True,
    ),
    "seed": Number("all randomness follows from it", 0, integer=True, at_least=0),
    "params": Free("names for numbers that expressions may use", {}),
    "steps": Number("steps of the run", integer=True, at_least=1, at_most=MAX_STEPS),
    "reproducibility": Text(
        "what the weights are a function of: exact: the spec; replay: the spec and the data that were sealed; fast: "
        "nothing is claimed; absent: exact, or replay where an engine does not repeat its bytes",
        None,
        choices=REPRODUCIBILITY,
    ),
    "lag": Number(
        "steps that rollouts are behind: step s samples from the version that began step s - lag, while those before"
        " it train",
        0,
        integer=True,
        at_least=0,
        at_most=MAX_LAG,
    ),
    "async": Section(
        "rollouts are sampled from the newest version that the sampler has, not from one that the spec says; not with "
        "`lag`, nor where weights are to be a function of the spec (`exact`)",
        {
            "max_staleness": Number(
                "steps that they may be behind what trains on them: so many are sampled ahead",
                integer=True,
                at_least=1,
                at_most=MAX_STALENESS,
            ),
            "partial": Flag(
                "completions that are not done after a segment go on under newer weights; becomes `continue` stages, "
                "and is no key of the canonical form",
                False,
                unwritten=True,
            ),
            "segment_tokens": Number(
                "of a segment, with `partial`; absent: so many that a completion spans as many versions as it may",
                None,
                integer=True,
                at_least=1,
                unwritten=True,
            ),
        },
        None,
        unwritten=True,
    ),
    "engine": Text(
        "what computes; one that only samples does so in every stage that samples, beside the one that does the rest",
        "torch",
        choices=tuple(ENGINES),
    ),
    "emulated": Named("the emulated engine's profile", Number("seconds, counts or shares", at_least=0), {}),
    "models": Named("weights by name", _MODEL),
    "data": Named("sources of prompts by name", _DATASET, {}),
    "stages": Items("the vertices of the graph", Section("a stage", STAGE), at_least=1),
    "checkpoint": Section(
        "when weights go to disk, beside the end",
        {
            "every": Number("steps between two; 0: only at the end", 0, integer=True, at_least=0),
            "keep": Number("newest ones that stay on disk", 2, integer=True, at_least=1),
        },
        {},
    ),
    "on_split": Text(
        "what the smaller part of a cut mesh does: go on by itself, or wait for the others",
        "continue",
        choices=("continue", "pause_minority"),
    ),
    "on_poison": Text(
        "what a task does that fails wherever it runs: end the run, or be left out of its step",
        "fail",
        choices=("fail", "skip"),
    ),
    "limits": Section("bounds of the run; this version knows none", {}, {}),
    "digests": Free("digests of the files that the spec names; filled in at submit", {}),
}


def origin_of(models: Mapping[str, Any], name: str) -> str:
    """The model that one is described as: of a version of another one that other one, else itself."""
    return str(models[name].get(KEPT) or name)
