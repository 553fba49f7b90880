"""What was measured, as files: a table, a picture, and one page that holds both and names no other file."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.scaling.measured import Measured
from benchmarks.scaling.profile import load

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;text-align:right;"
    "border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)
COLUMNS = ("system", "nodes", "step, s", "samples/s", "efficiency", "MB a step", "CPU s a step", "waiting")


def write(folder: Path, found: Sequence[Measured], kind: str) -> None:
    """scaling.csv, scaling.json, scaling.png and scaling.html; `kind`: weak or strong."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [each.row() for each in found]
    (folder / "scaling.json").write_text(json.dumps({"scaling": kind, "rows": rows}, indent=1) + "\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "scaling.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    picture = draw(found, kind)
    (folder / "scaling.png").write_bytes(picture)
    (folder / "scaling.html").write_text(page(found, kind, picture))


def draw(found: Sequence[Measured], kind: str) -> bytes:
    """Samples a second by nodes, a panel a profile and a line a system; dashed: the first size scaled up."""
    from matplotlib.figure import Figure

    profiles = _unique(each.profile for each in found)
    figure = Figure(figsize=(6 * len(profiles), 4.2), layout="constrained")
    for axes, profile in zip(figure.subplots(1, len(profiles), squeeze=False)[0], profiles, strict=True):
        for system in _unique(each.system for each in found):
            points = [(m.nodes, m.samples_s) for m in found if (m.profile, m.system) == (profile, system)]
            if not points:
                continue
            (line,) = axes.plot(*zip(*points, strict=True), marker="o", label=system)
            (first, speed), last = points[0], points[-1][0]
            axes.plot([first, last], [speed, speed * last / first], "--", color=line.get_color(), alpha=0.4)
        axes.set(title=f"{profile}, {kind} scaling", xlabel="nodes", ylabel="samples a second", ylim=(0, None))
        axes.set_xticks(sorted({each.nodes for each in found if each.profile == profile}))
        axes.legend()
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=120)
    return held.getvalue()


def page(found: Sequence[Measured], kind: str, picture: bytes) -> str:
    parts = [f"<h1>{kind.capitalize()} scaling</h1>"]
    parts.append(
        f'<img alt="samples a second by nodes" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    )
    for name in _unique(each.profile for each in found):
        profile = load(name)
        parts.append(
            f"<h2>{html.escape(name)}</h2><p>{html.escape(profile.about)}. Source: {html.escape(profile.source)}. "
        )
        parts.append(
            f"Prompts and seconds are divided by {profile.scale:g}: {profile.samples} samples of "
            f"{profile.sample_bytes:,} bytes and {profile.seconds:g} s of computing a node and step.</p>"
        )
        parts.append(_table([each for each in found if each.profile == name]))
        parts.append(_published(profile.published))
    title = f"<title>dflowd: {kind} scaling</title>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{STYLE}</style>{"".join(parts)}</html>\n'
    )


def _table(found: Sequence[Measured]) -> str:
    rows = [COLUMNS]
    for each in found:
        first = next(other for other in found if other.system == each.system)
        efficiency = each.samples_s / each.nodes / (first.samples_s / first.nodes)
        moved = f"{sum(each.bytes.values()) / 1e6:.1f}" if each.bytes else ""
        waiting = f"{each.waiting:.1%}" if each.stage_s else ""
        numbers = (
            f"{each.step_s:.3g}",
            f"{each.samples_s:.4g}",
            f"{efficiency:.3f}",
            moved,
            f"{each.cpu_s:.3g}",
            waiting,
        )
        rows.append((each.system, str(each.nodes), *numbers))
    return _rows(rows)


def _published(published: Mapping[str, Mapping[str, float]]) -> str:
    if not published:
        return ""
    sizes = sorted({int(size) for by_size in published.values() for size in by_size})
    rows = [("as published", *map(str, sizes))]
    rows += [(name, *(str(by_size.get(str(size), "")) for size in sizes)) for name, by_size in published.items()]
    return _rows(rows)


def _rows(rows: Sequence[Sequence[str]]) -> str:
    cells = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(["th"] + ["td"] * len(rows), rows, strict=False)
    ]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
