"""dflow sim."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import AsJson

if TYPE_CHECKING:
    from dflow_protocols.simulator.drawn.choice import Choice
    from dflow_protocols.simulator.drawn.survey import Lived, Survey

MOST_VIRTUAL_S = 86_400.0
HUNTED = 300  # meshes, of which one has to show that a rule is broken


def sim(
    nodes: Annotated[int | None, typer.Option(min=1, metavar="N", help="Nodes of each mesh; else drawn.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="How many meshes: 1, or 300 with --mutation.")
    ] = None,
    first_seed: Annotated[int, typer.Option(metavar="SEED", help="The seed of the first; others follow it.")] = 0,
    faults: Annotated[str, typer.Option(metavar="NAMES", help="all, none, or some, as crash,split.")] = "all",
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="What computes; else drawn.")] = None,
    work: Annotated[str, typer.Option(metavar="NAME", help="run, or none: membership alone.")] = "run",
    virtual_seconds: Annotated[
        float, typer.Option(min=1.0, max=MOST_VIRTUAL_S, metavar="T", help="How long each mesh lives until all heals.")
    ] = 12.0,
    mutation: Annotated[
        str | None, typer.Option(metavar="NAME", help="A rule that is broken, until a mesh shows it.")
    ] = None,
    shrunk: Annotated[
        bool, typer.Option("--shrink", help="Tell the fewest faults that still break a promise.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List all of these names.")] = False,
    as_json: AsJson = False,
) -> None:
    """Live through whole meshes in virtual time, where what breaks follows from a seed.

    Each seed is lived twice, in two processes, and must give one story. A promise that is broken is told with the end
    of its story and the command that shows it again; the exit code is 1 then. With --json the last line is one JSON
    object. With --mutation each seed is lived once, and the first violation ends it.

    Example: dflow sim --seeds 100
    """
    from dflow_protocols.simulator.drawn.survey import hunt, survey
    from dflow_protocols.simulator.mutations import MUTATIONS

    if listed:
        _list(as_json)
        return
    choice = _choice(nodes, faults, engine, work, virtual_seconds, mutation)
    count = seeds or (1 if mutation is None else HUNTED)
    lived, tell, began = range(first_seed, first_seed + count), _tell_broken if as_json else _tell, time.monotonic()
    found = survey(lived, choice, tell) if mutation is None else hunt(MUTATIONS[mutation], lived, choice, tell)
    if shrunk and mutation is None:
        _shrink(found, choice)
    _summarize(found, choice, time.monotonic() - began, as_json)
    if found.violations:
        raise typer.Exit(1)


def _choice(
    nodes: int | None, faults: str, engine: str | None, work: str, virtual_s: float, mutation: str | None
) -> Choice:
    """Raises CliError where a name is none."""
    from dflow_protocols.simulator.drawn.choice import ENGINES, WORKS, Choice
    from dflow_protocols.simulator.faults import FAULTS
    from dflow_protocols.simulator.mutations import MUTATIONS

    named = () if faults == "none" else tuple(name.strip() for name in faults.split(","))
    _refuse_unknown("fault", named if faults != "all" else (), FAULTS)
    _refuse_unknown("engine", () if engine is None else (engine,), ENGINES)
    _refuse_unknown("work", (work,), WORKS)
    _refuse_unknown("mutation", () if mutation is None else (mutation,), MUTATIONS)
    return Choice(nodes, None if faults == "all" else named, engine, work, virtual_s, mutation)


def _refuse_unknown(what: str, given: tuple[str, ...], known: Iterable[str]) -> None:
    from ..errors import CliError

    for name in given:
        if name not in known:
            raise CliError(f"no {what} is called `{name}`", where="dflow sim", hint=f"known: {', '.join(known)}")


def _list(as_json: bool) -> None:
    from dflow_protocols.simulator.drawn.choice import ENGINES
    from dflow_protocols.simulator.faults import FAULTS
    from dflow_protocols.simulator.invariants import INVARIANTS
    from dflow_protocols.simulator.mutations import MUTATIONS

    from ..output import print_json, print_table

    if as_json:
        names = {"faults": FAULTS, "engines": ENGINES, "invariants": INVARIANTS, "mutations": MUTATIONS}
        print_json({kind: list(known) for kind, known in names.items()})
        return
    print(f"faults: {', '.join(FAULTS)}\nengines: {', '.join(ENGINES)}\nmutations: {', '.join(MUTATIONS)}\n")
    print_table(("invariant", "what must hold"), INVARIANTS.items())


def _tell(lived: Lived) -> None:
    if lived.violation is None:
        print(f"seed {lived.seed}: {lived.events} events, {lived.virtual_s:.1f} s, {lived.digest}", flush=True)
    _tell_broken(lived)


def _tell_broken(lived: Lived) -> None:
    from ..output import note

    if lived.violation is not None:
        note(f"seed {lived.seed}: {lived.violation.invariant} is broken\n{lived.violation}")


def _shrink(found: Survey, choice: Choice) -> None:
    from dflow_protocols.simulator.drawn.shrink import shrink

    from ..output import note

    for seed, violation in found.violations:
        fewest = shrink(seed, choice, violation.invariant)
        if fewest is None:
            note(f"seed {seed}: lived once more it breaks no `{violation.invariant}`, so there is nothing to shrink")
        else:
            note(f"seed {seed}, shrunk\n{fewest.story}\n\n{fewest.case}")


def _summarize(found: Survey, choice: Choice, wall_s: float, as_json: bool) -> None:
    from ..output import print_json, print_table

    if not as_json:
        if found.drawn:
            rows = [(name, count, found.struck[name]) for name, count in sorted(found.drawn.items())]
            print_table(("fault", "drawn", "struck"), rows)
        if found.rooms:
            limited, shed, refused = (found.rooms[name] for name in ("limited", "shed", "refused"))
            print(f"stores limited in {limited} worlds: something shed in {shed}, refused in {refused}")
        print(f"{found.seeds} seeds, {len(found.violations)} violations")
        return
    broken = [
        {"seed": seed, "invariant": each.invariant, "at": each.at, "replay": choice.command(seed)}
        for seed, each in found.violations
    ]
    totals = {name: getattr(found, name) for name in ("seeds", "nodes", "events", "virtual_s")}
    counts = {"drawn": dict(sorted(found.drawn.items())), "struck": dict(sorted(found.struck.items()))}
    print_json({**totals, "wall_s": wall_s, **counts, "violations": broken, "digest": found.digest})
