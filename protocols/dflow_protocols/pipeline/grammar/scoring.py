"""What a reward function of one's own, or a filter's, may ask for: its parameters say it, by their names.

    def reward(completion, answer)                           called once a completion, gives a number
    def reward(completion, prompt, entry, *, scale=1.0)      any of them, and the stage's `args`
    def reward(completion, tokens, finished)                 and what else is known of a completion
    def reward(completions, answers)                         called once a partition, gives a list of numbers

And a filter's function, which is called once a group:

    def keep(rewards, completions, answer)                   says whether the group is trained on

Checked twice by these rules: by clients from the text of the file, by engines from the function itself.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .shape import Free, Number, Section, Shape, Text

EACH = ("completion", "answer", "prompt", "entry")
ALL = ("completions", "answers", "prompts", "entries")
BESIDE = ("tokens", "truncated", "finished", "step", "messages", "turns")
"""With either: how many tokens, whether `max_tokens` cut it off, or an end token or a stop text ended it (one of the
two is true), the step's number, the conversation that was put to the model, and what was said then; all but the step of
ALL as lists."""
OF_GROUP = ("rewards", "completions", "answer", "prompt", "entry")
"""Of a group, beside BESIDE; what its completions do not share is a list."""
BY_ENVIRONMENT = "dflowd.operators.reward:environment"  # what an environment gave for the turns of its conversation
LENT = {"dflowd.operators.reward:reasoning_gym": ("data",), BY_ENVIRONMENT: ("earned",)}
"""What a built-in reward is given beside these."""

EFFECTFUL = ("dflowd.rewards.judge:score",)  # of the built-in ones, those that another call may find otherwise

FUNCTION_PATTERN = r"([A-Za-z_][\w.]*|[^\s:]+\.py):[A-Za-z_]\w*"
FUNCTION_FORM = "`module:function`, or `file.py:function` beside the spec"
SCORING: Mapping[str, Shape] = {
    "timeout_s": Number(
        "seconds that one call of `function` may take: for a completion, or for a partition where it takes all of it",
        30.0,
        above=0,
        at_most=86400,
        unwritten=True,
    ),
    "on_error": Text(
        "what an answer costs whose call raises, takes too long or ends its process: fail ends the run; zero scores it "
        "0; leave_out takes it out of its group and of training (an evaluation counts it as wrong)",
        "fail",
        choices=("fail", "zero", "leave_out"),
        unwritten=True,
    ),
    "concurrency": Number(
        "calls of an `async def` function that wait beside each other",
        8,
        integer=True,
        at_least=1,
        at_most=1024,
        unwritten=True,
    ),
}

CLASS_FORM = "`module:Class`, or `file.py:Class` beside the spec"
MAX_TURNS = 256

ENVIRONMENT = Section(
    "who answers the model, so that a completion is a conversation of several turns",
    {
        "class": Text("of the environment: `module:Class`", pattern=FUNCTION_PATTERN, form=CLASS_FORM),
        "turns": Number("that the model has at most", integer=True, at_least=1, at_most=MAX_TURNS),
        "args": Free("keyword arguments of the class", {}),
        "timeout_s": Number(
            "seconds that one `reset` or `step` may take", 30.0, above=0, at_most=86400, unwritten=True
        ),
        "on_error": Text(
            "what a conversation costs whose environment raises, takes too long or ends its process: fail ends the "
            "run; zero ends it there, with nothing earned; leave_out takes it out of its group and of training, too",
            "fail",
            choices=("fail", "zero", "leave_out"),
            unwritten=True,
        ),
        "concurrency": Number(
            "conversations whose `async def step` waits beside each other",
            8,
            integer=True,
            at_least=1,
            at_most=1024,
            unwritten=True,
        ),
    },
    None,
    unwritten=True,
)


class MisfitError(ValueError):
    """A function that cannot be called as a reward, or as a filter."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """`kind`: `name` (can be given by name), `position` (only by position), `rest` (**kwargs); *args is none."""

    name: str
    kind: str
    required: bool


@dataclass(frozen=True, slots=True)
class Calling:
    """How to call it: once for `all` completions of a partition or for each; with these of EACH or ALL, and of BESIDE,
    by name."""

    all: bool
    names: tuple[str, ...]


def calling(parameters: Sequence[Parameter], args: Collection[str]) -> Calling:
    """How a function with these parameters is called; `args`: names of the stage's. Raises MisfitError."""
    is_all = any(parameter.kind == "name" and parameter.name in ALL for parameter in parameters)
    return Calling(is_all, _asked(parameters, ALL if is_all else EACH, args))


def asked_of_group(parameters: Sequence[Parameter], args: Collection[str]) -> tuple[str, ...]:
    """What a filter's function with these parameters is given by name, of OF_GROUP and BESIDE; `args`: names of the
    stage's. Raises MisfitError."""
    return _asked(parameters, OF_GROUP, args)


def _asked(parameters: Sequence[Parameter], given: Sequence[str], args: Collection[str]) -> tuple[str, ...]:
    """Of `given` and BESIDE, what it is called with. Raises MisfitError."""
    asked = [parameter.name for parameter in parameters if parameter.kind == "name"]
    takes_any = any(parameter.kind == "rest" for parameter in parameters)
    by_position = [p.name for p in parameters if p.kind == "position" and p.required]
    if by_position:
        raise MisfitError(f"takes `{by_position[0]}` by position; all that it asks for is given by name")
    unknown = [p.name for p in parameters if p.kind == "name" and p.required and p.name not in {*given, *BESIDE, *args}]
    if unknown:
        raise MisfitError(
            f"asks for `{unknown[0]}`; it may ask for {', '.join((*given, *BESIDE))}, and the stage's `args`"
        )
    surplus = [name for name in args if name not in asked and not takes_any]
    if surplus:
        raise MisfitError(f"does not take `{surplus[0]}`, which the stage's `args` hold")
    names = [name for name in given if name in asked or takes_any] + [name for name in BESIDE if name in asked]
    return tuple(name for name in names if name not in args)


def parameters_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[Parameter]:
    """The parameters of a function as its text has them."""
    parts = function.args
    positional = [*parts.posonlyargs, *parts.args]
    first_default = len(positional) - len(parts.defaults)
    found = [
        Parameter(arg.arg, "position" if index < len(parts.posonlyargs) else "name", index < first_default)
        for index, arg in enumerate(positional)
    ]
    named = zip(parts.kwonlyargs, parts.kw_defaults, strict=True)
    found += [Parameter(arg.arg, "name", default is None) for arg, default in named]
    if parts.kwarg is not None:
        found.append(Parameter(parts.kwarg.arg, "rest", False))
    return found
