"""Which invariant notices which broken rule: writes docs/mutations.md. `make mutations`, or for some of them, with the
page left as it is, `python -m benchmarks.mutations NAME ...`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from dflow_protocols.simulator.drawn.choice import USUAL
from dflow_protocols.simulator.drawn.survey import hunt
from dflow_protocols.simulator.mutations import MUTATIONS

SEEDS = 300  # that a mutation has to be noticed within
PAGE = Path(__file__).parents[1] / "docs" / "mutations.md"
INTRODUCTION = (
    "# What drawn meshes notice\n\n"
    "Each mutation breaks one rule of [the protocol](protocol.md) on purpose: a function, method or constant is "
    "another one while a mesh lives (`simulator/mutations/`). The usual worlds of seeds 0, 1, 2 and so on, up to "
    f"{SEEDS} of them, are lived one after the other until an invariant is broken (`dflow sim --list` says what each "
    "holds). `survives N`: none of these N worlds shows it. Where drawn worlds cannot show a broken rule its row says "
    "why, and which test holds it. `make mutations` writes this page anew.\n\n"
    "| mutation | rule | target | noticed by | at seed |\n|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation. `invariant`: that was broken first, at the last of `seeds`; none where it survived
    them all."""

    name: str
    seeds: int
    invariant: str = ""

    @property
    def has_survived(self) -> bool:
        """Though it was tried."""
        return self.seeds > 0 and not self.invariant


def try_out(name: str) -> Outcome:
    """Live through worlds with this mutation until one shows it; through none, where that could show nothing."""
    if MUTATIONS[name].unseen:
        return Outcome(name, 0)
    found = hunt(MUTATIONS[name], range(SEEDS), USUAL)
    return Outcome(name, found.seeds, found.violations[0][1].invariant if found.violations else "")


def page(outcomes: Sequence[Outcome]) -> str:
    """The text of docs/mutations.md."""
    rows = []
    for each in outcomes:
        mutation = MUTATIONS[each.name]
        noticed = f"`{each.invariant}` | {each.seeds - 1}" if each.invariant else f"survives {each.seeds} |"
        if mutation.unseen:
            noticed = f"not tried: {mutation.unseen} |"
        rows.append(f"| `{each.name}` | {mutation.rule} | `{mutation.target}` | {noticed} |\n")
    return INTRODUCTION + "".join(rows)


def main(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in MUTATIONS]:
        sys.exit(f"no mutation is called {', '.join(unknown)}; docs/mutations.md lists all")
    wanted, began = list(names or MUTATIONS), time.monotonic()
    outcomes: dict[str, Outcome] = {}
    with ProcessPoolExecutor() as pool:  # on all cores; what is noticed late holds nobody else up
        for future in as_completed([pool.submit(try_out, name) for name in wanted]):
            outcome = future.result()
            outcomes[outcome.name] = outcome
            told = "not tried" if MUTATIONS[outcome.name].unseen else outcome.invariant or "survives"
            print(f"{len(outcomes)}/{len(wanted)} {outcome.name}: {told}, {outcome.seeds} worlds", flush=True)
    worlds, survivors = sum(each.seeds for each in outcomes.values()), [n for n in wanted if outcomes[n].has_survived]
    print(f"{worlds} worlds in {time.monotonic() - began:.0f} s; unnoticed: {', '.join(survivors) or 'none'}")
    if not names:
        PAGE.write_text(page([outcomes[name] for name in wanted]))


if __name__ == "__main__":
    main(sys.argv[1:])
