"""The protocols stand on each other in one line; who reads a layer need not know those above it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.tidy.sources import arrows, folder_of, is_within

PROTOCOLS = "dflow_protocols"
LINE = (
    ("simulator.drawn",),
    ("simulator.drawn.drawing", "simulator.watching.runs"),
    ("simulator.watching",),
    ("simulator.mutations",),
    ("simulator",),
    ("simulator.faults",),
    ("simulator.model",),
    ("node",),
    ("story",),
    ("runs",),
    ("controllers",),
    ("run_state",),
    ("steps",),
    ("versions",),
    ("membership", "claiming", "shards"),
    ("events",),
    ("work",),
    ("ranges",),
    ("books",),
    ("wire", "pipeline"),
    ("pipeline.entries",),
    ("pipeline.grammar",),
    ("pipeline.recipes",),
)
"""From the top; a layer may import those below it, and none beside it. Files at the top that are not named lie below
all: they may import each other only."""
GROUND = len(LINE)


def layer(folder: str) -> int:
    """Where a folder, or a file at the top of the tree, stands: 0 is the highest."""
    name = folder.removeprefix(f"{PROTOCOLS}.")
    return next((at for at, names in enumerate(LINE) if name in names), GROUND)


def upward(pairs: Iterable[tuple[str, str]], folder: Callable[[str], str]) -> dict[str, list[str]]:
    """Imports (who, whom) that do not point down, by the folders between which they go."""
    found: dict[str, list[str]] = {}
    for name, other in pairs:
        here, there = folder(name), folder(other)
        is_down = layer(here) < layer(there) or layer(here) == layer(there) == GROUND
        if here != there and not is_down:
            found.setdefault(f"{here} -> {there}".replace(f"{PROTOCOLS}.", ""), []).append(f"{name} imports {other}")
    return found


def test_each_layer_of_the_protocols_imports_only_those_below_it() -> None:
    """So a controller knows no run and no node, a step knows no run's state, and a unit test of each needs no mesh."""
    pairs = (
        (name, other)
        for name, others in arrows().items()
        for other in others
        if is_within(name, PROTOCOLS) and PROTOCOLS not in (name, other)
    )
    assert upward(pairs, folder_of) == {}


def test_every_folder_of_the_protocols_has_its_place_in_the_line() -> None:
    """A folder of which nobody said where it stands would be held to nothing."""
    folders = {folder_of(name) for name in arrows() if is_within(name, PROTOCOLS)}
    named = {f"{PROTOCOLS}.{name}" for names in LINE for name in names}
    unplaced = {folder for folder in folders - named if any(folder_of(name) == folder != name for name in arrows())}
    assert unplaced - {PROTOCOLS} == set()
    assert named - folders == set()


def test_the_search_for_arrows_upward_finds_them() -> None:
    """To a layer above, and to one beside it."""
    pairs = [
        ("controllers", "runs"),
        ("runs", "controllers"),
        ("claiming", "shards"),
        ("names", "wire"),
        ("keys", "names"),
    ]
    assert sorted(upward(pairs, str)) == ["claiming -> shards", "controllers -> runs", "names -> wire"]
