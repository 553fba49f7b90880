"""What is wrong with a pipeline: where, what and the remedy, all of it at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from .elsewhere import called_here


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `path` leads to it from the top, such as `stages[3].config.loss.clip`; empty: the whole."""

    path: str
    what: str
    hint: str


@dataclass(slots=True)
class Findings:
    """What a look at a pipeline or its files found. `warnings`: it can run, and is probably not what was meant."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def include(self, others: Findings) -> None:
        """What another look found, too."""
        self.problems += others.problems
        self.warnings += others.warnings


class SpecError(ValueError):
    """A pipeline that cannot run. `problems`: every mistake found, in the order of the format."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{p.path or 'pipeline'}: {p.what} (hint: {p.hint})" for p in self.problems))


def placed(problem: Problem, stages: Sequence[str], written: Sequence[str], elsewhere: str) -> Problem:
    """With its path in a spec as it was written. `stages`: the ids of those that the path counts; `written`: of those
    that the spec has; `elsewhere`: where the others come from."""
    match = re.match(r"stages\[(\d+)\]", problem.path)
    if not match:
        return problem
    at = int(match[1])
    alike = [index for index, name in enumerate(written) if name == stages[at]]
    if not alike:
        return replace(problem, path=elsewhere)
    index = alike[min(stages[:at].count(stages[at]), len(alike) - 1)]  # of those with one id, that which it is
    return replace(problem, path=f"stages[{index}]{problem.path[match.end() :]}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely meant, if any is near."""
    found = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def meant(name: str, known: Collection[str]) -> str | None:
    """The known name that `name` says in another program's words, or misspells."""
    return called_here(name, known) or nearest(name, known)


def suggest(name: str, known: Iterable[str], kind: str) -> str:
    """A hint: the known name that is meant, or all of them. `kind`: what they are, in the plural."""
    names = sorted(known)
    near = meant(name, names)
    if near is not None:
        return f"did you mean `{near}`?"
    return f"known {kind}: {', '.join(names)}" if names else f"there are no {kind} here"
