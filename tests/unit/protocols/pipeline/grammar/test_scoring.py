"""What a reward may ask for: told from the text of a file before a run, and from the function itself in it."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest

from dflow_protocols.pipeline.grammar.scoring import (
    Calling,
    MisfitError,
    Parameter,
    asked_of_group,
    calling,
    parameters_in,
)
from dflowd.workers.process import KINDS

NAMED = {kind for kind, name in KINDS.items() if name != "rest"}


def parameters(text: str) -> list[Parameter]:
    """Of `def reward(TEXT)`, read as a client does; what an engine reads of it has to be the same."""
    source = f"def reward({text}): pass"
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    space: dict[str, Any] = {}
    exec(source, space)
    made = inspect.signature(space["reward"]).parameters.values()
    read = parameters_in(function)
    assert [(p.name, p.kind) for p in read] == [(p.name, KINDS[p.kind]) for p in made if p.kind in KINDS]
    assert [p.required for p in read if p.kind != "rest"] == [p.default is p.empty for p in made if p.kind in NAMED]
    return read


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("completion, answer", (), Calling(False, ("completion", "answer"))),
        ("answer, completion, *, prompt, entry", (), Calling(False, ("completion", "answer", "prompt", "entry"))),
        (
            "completion, answer, *, prompt, entry, **args",
            ("scale",),
            Calling(False, ("completion", "answer", "prompt", "entry")),
        ),
        ("completion, scale=1.0", ("scale",), Calling(False, ("completion",))),
        ("completion, scale", ("scale",), Calling(False, ("completion",))),
        ("completions, answers", (), Calling(True, ("completions", "answers"))),
        ("*args, **kwargs", (), Calling(False, ("completion", "answer", "prompt", "entry"))),
        ("completion, answer, prompt='x'", (), Calling(False, ("completion", "answer", "prompt"))),
    ],
)
def test_a_reward_gets_by_name_what_it_asks_for(text: str, args: tuple[str, ...], expected: Calling) -> None:
    """In any order, once a completion or once a partition, and the stage's `args` beside it."""
    assert calling(parameters(text), args) == expected


@pytest.mark.parametrize(
    ("text", "args", "what"),
    [
        ("text, truth", (), "asks for `text`"),
        ("completion, answers", (), "asks for `completion`"),
        ("completion, /", (), "takes `completion` by position"),
        ("completion", ("scale",), "does not take `scale`"),
    ],
)
def test_a_function_that_cannot_be_called_is_told_before_the_run(text: str, args: tuple[str, ...], what: str) -> None:
    """Each of these would fail at the first completion, after the model was loaded."""
    with pytest.raises(MisfitError, match=what):
        calling(parameters(text), args)


def test_a_filter_is_asked_of_a_group() -> None:
    """By the names of a reward's function, where what a group's completions do not share is a list."""
    assert asked_of_group(parameters("rewards, low"), ("low",)) == ("rewards",)
    assert asked_of_group(parameters("truncated, answer, completions"), ()) == ("completions", "answer", "truncated")
    with pytest.raises(MisfitError, match="asks for `completion`; it may ask for rewards, completions, answer"):
        asked_of_group(parameters("completion"), ())
