"""Whoever looks for the tests of a folder finds them under its own name."""

from __future__ import annotations

from pathlib import Path

from tests.tidy.sources import PACKAGES, ROOT, imports, is_within, shown

UNIT = ROOT / "tests" / "unit"
TREES = {
    "protocols": PACKAGES["dflow_protocols"],
    "dflowd": PACKAGES["dflowd"],
    "cli": PACKAGES["dflow_cli"],
    "benchmarks": ROOT / "benchmarks",
}


def unlike_their_source(files: list[Path]) -> list[str]:
    """Files under tests/unit whose folder is none of the source tree that it is named for."""
    faults = []
    for path in files:
        tree, *inner = path.relative_to(UNIT).parts[:-1] or ("",)
        if tree not in TREES or not TREES[tree].joinpath(*inner).is_dir():
            faults.append(shown(path))
    return faults


def test_unit_tests_lie_as_their_sources_do() -> None:
    """tests/unit/protocols/steps holds those of protocols/dflow_protocols/steps; a file's tests may be several."""
    assert unlike_their_source(sorted(UNIT.rglob("*.py"))) == []


def test_unit_tests_take_nothing_from_whole_meshes() -> None:
    """What both need lies in tests/support; a unit test that borrows a scenario is one."""
    others = ("tests.sim", "tests.mesh", "tests.e2e")
    found = [
        f"{shown(path)}:{line} imports {module}"
        for path in sorted(UNIT.rglob("*.py"))
        for module, line in imports(path)
        if is_within(module, *others)
    ]
    assert found == []


def test_the_look_at_folders_finds_one_that_is_misplaced() -> None:
    """At the top, in no tree, and in a folder that its tree has not."""
    well = [UNIT / "protocols" / "steps" / "test_a.py", UNIT / "cli" / "test_b.py"]
    ill = [UNIT / "test_c.py", UNIT / "steps" / "test_d.py", UNIT / "dflowd" / "steps" / "test_e.py"]
    assert unlike_their_source([*well, *ill]) == [shown(path) for path in ill]
