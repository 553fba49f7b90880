"""Is it better or worse than it was? Compares the figures of two sets of results.

    python -m benchmarks compare OLD NEW [--noise 0.05] [--json]

OLD and NEW: a file with what `python -m benchmarks NAME --json` printed, one or several runs of one or several
benchmarks, or a folder of such files (*.json, *.jsonl, *.log, *.txt). Of several runs the median counts, and their
spread (largest minus least, over the median) is noise. A figure with an anchor on both sides is compared by its ratio
to it, since both were measured in the same minutes; any other by its value. A change is within noise if it is smaller
than the larger spread or than --noise. Exit code 0 whatever is found, 2 for what cannot be read.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.figure import aligned

ENDINGS = (".json", ".jsonl", ".log", ".txt")
NOISE = 0.05
RATES = ("/s", "a second")  # a unit that ends so is better when there is more of it
COSTS = ("s", "ms", "bytes", "kB", "MB", "MiB", "GB", "processor seconds a GB")  # and of these less

Name: TypeAlias = tuple[str, str]  # of a benchmark and one of its figures
Row: TypeAlias = dict[str, Any]


class Unreadable(ValueError):
    """What was given holds no results; the text says what it is, `hint` what it should be."""

    hint = "give what `python -m benchmarks NAME --json` printed, as a file or a folder of files"


@dataclass(slots=True)
class Series:
    """One figure over all runs of one side."""

    rows: list[Row] = field(default_factory=list)

    def values(self, key: str) -> list[float]:
        return [float(row[key]) for row in self.rows if row.get(key) is not None]

    def has_anchor(self) -> bool:
        return len(self.values("ratio")) == len(self.rows)


@dataclass(frozen=True, slots=True)
class Change:
    """A figure that both sides have. `by`: what is compared, `ratio` or `ours`; `ratio`: new over old, None where old
    is nothing."""

    name: Name
    unit: str
    by: str
    old: float
    new: float
    ratio: float | None
    spread: float
    verdict: str


def compare(old: dict[Name, Series], new: dict[Name, Series], noise: float) -> list[Change]:
    """Every figure that both sides have, in the order of the old side."""
    return [_change(name, old[name], new[name], noise) for name in old if name in new]


def _change(name: Name, old: Series, new: Series, noise: float) -> Change:
    by = "ratio" if old.has_anchor() and new.has_anchor() else "ours"
    before, after = old.values(by), new.values(by)
    first, second = statistics.median(before), statistics.median(after)
    ratio = second / first if first else (1.0 if not second else None)
    spread = max(_spread(before), _spread(after))
    verdict = _verdict(ratio, max(spread, noise), _is_more_better(new.rows[-1]))
    return Change(name, str(new.rows[-1]["unit"]), by, first, second, ratio, spread, verdict)


def _spread(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return (max(values) - min(values)) / abs(middle) if middle else 0.0


def _verdict(ratio: float | None, noise: float, is_more_better: bool | None) -> str:
    if ratio is not None and abs(ratio - 1) <= noise:
        return "within noise"
    if is_more_better is None:
        return "differs"
    has_more = ratio is None or ratio > 1
    return "better" if has_more is is_more_better else "worse"


def _is_more_better(row: Row) -> bool | None:
    """By its goal, which says on which side of it a value should be, else by its unit; None where neither tells."""
    goal, value = row.get("goal"), row["ours"] if row.get("ratio") is None else row["ratio"]
    if goal is not None and value != goal:
        return bool(row["holds"]) is (value > goal)
    unit = str(row["unit"])
    if unit.endswith(RATES):
        return True
    return False if unit in COSTS else None


def read(path: Path) -> dict[Name, Series]:
    """All figures of a file, or of the files of a folder, by benchmark and figure. Raises Unreadable."""
    if not path.exists():
        raise Unreadable(f"{path}: there is no such file or folder")
    files = sorted(each for each in path.iterdir() if each.suffix in ENDINGS) if path.is_dir() else [path]
    found: dict[Name, Series] = {}
    for result in (result for each in files for result in _results(each)):
        for row in result["figures"]:
            found.setdefault((result["name"], row["figure"]), Series()).rows.append(row)
    if not found:
        raise Unreadable(f"{path}: no results in it")
    return found


def _results(path: Path) -> Iterable[dict[str, Any]]:
    """The lines of a file that are results; what else was printed is passed over."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as why:
        raise Unreadable(f"{path}: cannot be read ({why})") from None
    for line in lines:
        try:
            said = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(said, dict) and "name" in said and isinstance(said.get("figures"), list):
            if not all(_is_row(row) for row in said["figures"]):
                raise Unreadable(f"{path}: a result of `{said['name']}` has a figure that is none")
            yield said


def _is_row(row: Any) -> bool:
    numbers = ("ours", "ratio", "goal")
    return (
        isinstance(row, dict)
        and {"figure", "unit", "ours", "holds"} <= row.keys()
        and isinstance(row["ours"], int | float)
        and all(isinstance(row.get(key), int | float | None) for key in numbers)
    )


def table(changes: Sequence[Change], gone: Sequence[Name], come: Sequence[Name]) -> str:
    """For people. `gone`, `come`: figures of the old side only, and of the new one."""
    rows = [("benchmark", "figure", "unit", "by", "old", "new", "new/old", "spread", "verdict")]
    for each in changes:
        ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
        values = (f"{each.old:.4g}", f"{each.new:.4g}", ratio, f"{each.spread:.3f}")
        rows.append((*each.name, each.unit, each.by, *values, each.verdict))
    rows += [(*name, "", "", "", "", "", "", verdict) for verdict, names in _alone(gone, come) for name in names]
    return aligned(rows)


def _alone(gone: Sequence[Name], come: Sequence[Name]) -> tuple[tuple[str, Sequence[Name]], ...]:
    return ("only in OLD", gone), ("only in NEW", come)


def main(words: Sequence[str]) -> None:
    """Raises Unreadable."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks compare", description=__doc__, formatter_class=form)
    parser.add_argument("old", type=Path, metavar="OLD", help="results of before")
    parser.add_argument("new", type=Path, metavar="NEW", help="results of now")
    parser.add_argument("--noise", type=float, default=NOISE, help=f"the least change that counts ({NOISE})")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    chosen = parser.parse_args(words)
    old, new = read(chosen.old), read(chosen.new)
    changes = compare(old, new, chosen.noise)
    gone, come = [name for name in old if name not in new], [name for name in new if name not in old]
    if not chosen.json:
        print(table(changes, gone, come))
        return
    shown = [_as_json(each) for each in changes]
    print(json.dumps({"name": "compare", "changes": shown, "only_old": gone, "only_new": come}))


def _as_json(change: Change) -> dict[str, Any]:
    benchmark, figure = change.name
    kept = ("unit", "by", "old", "new", "ratio", "spread", "verdict")
    return {"benchmark": benchmark, "figure": figure} | {key: getattr(change, key) for key in kept}
