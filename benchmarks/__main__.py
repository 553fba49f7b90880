"""Measure dflowd, each question beside what it is compared with.

    python -m benchmarks --list                the benchmarks, and what each asks
    python -m benchmarks NAME [--quick]        run one; --quick gives a figure in a minute or two, a rough one
    python -m benchmarks NAME --help           what it measures, its settings
    python -m benchmarks compare OLD NEW       two sets of results, figure by figure: better, worse, within noise
    python -m benchmarks NAME --json           the last line is one JSON object for scripts:
      {"name", "settings", "figures": [{"figure", "unit", "ours", "anchor", "anchor_value", "ratio", "goal", "holds"}]}

`ratio` is ours over the anchor's, `goal` bounds it (or the figure itself, where there is no anchor), `holds` says
whether it is kept; what has no anchor or goal has null there. A benchmark that cannot run on this machine says so
({"name", "skipped": reason, "figures": []}). Exit code 0: it was measured or skipped, whatever the figures are.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from benchmarks import compare
from benchmarks.figure import Skipped, table
from benchmarks.registry import BENCHMARKS, Benchmark, load, question
from benchmarks.stopping import cleaned_up

WRONG_INPUT = 2


def main(words: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else list(words)
    name = next((word for word in words[:1] if not word.startswith("-")), None)
    if name is None:
        overview(words)
    elif name == "compare":
        compare_results(words[1:])
    elif name not in BENCHMARKS:
        unknown(name)
    else:
        run(load(name), words[1:])


def overview(words: Sequence[str]) -> None:
    """Without a name: which there are."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=AsWritten)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the benchmark to run")
    parser.add_argument("--list", action="store_true", help="tell which there are")
    parser.add_argument("--json", action="store_true", help="for scripts")
    chosen = parser.parse_args(words)
    if chosen.name is not None:
        parser.error(f"options of a benchmark follow its name: python -m benchmarks {chosen.name} ...")
    if not chosen.list:
        parser.print_help()
        sys.exit(WRONG_INPUT)
    if chosen.json:
        say({"benchmarks": list(BENCHMARKS)})
    else:
        width = max(map(len, BENCHMARKS))
        print("\n".join(f"{name.ljust(width)}  {question(name)}" for name in BENCHMARKS))


def unknown(name: str) -> NoReturn:
    near = [each for each in BENCHMARKS if name in each] or difflib.get_close_matches(name, BENCHMARKS, 1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    refuse(f"there is no benchmark `{name}`", f"{hint}`python -m benchmarks --list` tells which there are")


def compare_results(words: Sequence[str]) -> None:
    try:
        compare.main(words)
    except compare.Unreadable as why:
        refuse(str(why), why.hint)


def refuse(error: str, hint: str) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    print(f"hint: {hint}", file=sys.stderr)
    sys.exit(WRONG_INPUT)


def run(benchmark: Benchmark, words: Sequence[str]) -> None:
    """Measure, telling rows on the way and the figures at the end."""
    parser = argparse.ArgumentParser(
        f"python -m benchmarks {benchmark.name}", description=benchmark.about, formatter_class=AsWritten
    )
    short = ", ".join(f"{name} {value}" for name, value in benchmark.quick.items())
    parser.add_argument("--quick", action="store_true", help=f"the short form: {short or 'the same'}")
    parser.add_argument("--json", action="store_true", help="rows and, last, the figures as JSON")
    for option in benchmark.options:
        option.add_to(parser)
    given = vars(parser.parse_args(words))
    as_json, settings = given.pop("json"), benchmark.settings(given, given.pop("quick"))

    def tell(row: Mapping[str, Any]) -> None:
        if as_json:
            say(row)
        else:
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    tell({"load": round(os.getloadavg()[0], 2)})
    try:
        with cleaned_up():
            figures = benchmark.measure(tell, **settings)
    except Skipped as why:
        if as_json:
            say({"name": benchmark.name, "skipped": str(why), "figures": []})
        else:
            print(f"skipped: {why}")
        return
    if as_json:
        say({"name": benchmark.name, "settings": settings, "figures": [each.row() for each in figures]})
    else:
        print(table(figures))


def say(row: Mapping[str, Any]) -> None:
    print(json.dumps(row, allow_nan=False), flush=True)


class AsWritten(argparse.RawDescriptionHelpFormatter):
    """Docstrings keep their lines; options have room for their names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=120)


if __name__ == "__main__":
    main()
