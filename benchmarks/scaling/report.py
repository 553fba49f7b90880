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
from benchmarks.scaling.profile import Profile, load

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;text-align:right;"
    "border-bottom:1px solid #ddd;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
    "caption{text-align:left;font-weight:600;padding:.25rem 0}.wide{overflow-x:auto}"
)
COLUMNS = ("system", "nodes", "step, s", "devices alone, s", "samples/s", "efficiency", "waiting")
COSTS = ("system", "nodes", "bulk, MB a step", "control, MB a step", "CPU, s a step", "daemons' CPU, s", "memory, GB")
ELSEWHERE = {
    "weak": (
        ("DistFlow, 256 to 512 GPUs", 0.90, 0.94, "arXiv 2507.13833"),
        ("DistFlow, 1,024 GPUs, 72B", 0.78, 0.78, "arXiv 2507.13833v2"),
    ),
    "strong": (
        ("verl, 32 to 128 GPUs, fixed batch", 0.49, 0.55, "its published runs"),
        ("NeMo-RL, one doubling, fixed batch", 0.60, 0.64, "its published runs"),
    ),
}
"""By kind of scaling: efficiencies that others published, the least and the most, and where."""


def write(folder: Path, found: Sequence[Measured], kind: str, smaller: float = 1.0) -> None:
    """scaling.csv, scaling.json, scaling.png and scaling.html; `kind`: weak or strong; `smaller`: than its file says
    was each profile."""
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
    (folder / "scaling.html").write_text(page(found, kind, picture, smaller))


def draw(found: Sequence[Measured], kind: str) -> bytes:
    """A column a profile: samples a second by nodes, a line a system (dashed: the first size scaled up), and below it
    the efficiency of each."""
    from matplotlib.figure import Figure

    profiles = _unique(each.profile for each in found)
    figure = Figure(figsize=(6 * max(1, len(profiles)), 7.2), layout="constrained")
    grid = figure.subplots(2, max(1, len(profiles)), squeeze=False, sharex="col", height_ratios=(3, 2))
    for column, profile in enumerate(profiles):
        speed, share = grid[0][column], grid[1][column]
        for system in _unique(each.system for each in found):
            rows = [each for each in found if (each.profile, each.system) == (profile, system)]
            if not rows:
                continue
            sizes = [each.nodes for each in rows]
            (line,) = speed.plot(sizes, [each.samples_s for each in rows], marker="o", label=system)
            ideal = [rows[0].samples_s * size / sizes[0] for size in sizes]
            speed.plot(sizes, ideal, "--", color=line.get_color(), alpha=0.4)
            share.plot(sizes, [efficiency(each, rows[0]) for each in rows], marker="o", color=line.get_color())
        speed.set(title=f"{profile}, {kind} scaling", ylabel="samples a second", ylim=(0, None))
        share.axhline(1.0, color="#999", linewidth=0.8)
        for label, least, most, _ in ELSEWHERE[kind]:
            share.axhspan(least - 0.004, most + 0.004, color="#bbb", alpha=0.4, linewidth=0)
            share.text(0.01, least - 0.01, label, transform=share.get_yaxis_transform(), va="top", fontsize=7)
        share.set(xlabel="nodes", ylabel="efficiency", ylim=(0, 1.1))
        share.set_xticks(sorted({each.nodes for each in found if each.profile == profile}))
        speed.legend()
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=120)
    return held.getvalue()


def efficiency(each: Measured, first: Measured) -> float:
    """Its speed a node, of that of the smallest mesh."""
    return each.samples_s / each.nodes / (first.samples_s / first.nodes)


def page(found: Sequence[Measured], kind: str, picture: bytes, smaller: float) -> str:
    parts = [f"<h1>{kind.capitalize()} scaling</h1>", *_hosts(found)]
    parts.append(
        f'<img alt="samples a second by nodes" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    )
    for name in _unique(each.profile for each in found):
        profile = load(name, smaller)
        parts.append(
            f"<h2>{html.escape(name)}</h2><p>{html.escape(profile.about)}. Source: {html.escape(profile.source)}. "
        )
        parts.append(
            f"Prompts and seconds are divided by {profile.scale:g}: {profile.samples} samples of "
            f"{profile.sample_bytes:,} bytes and {profile.seconds:g} s of computing a node and step.</p>"
        )
        parts += _tables([each for each in found if each.profile == name])
        parts.append(_published(profile))
    parts.append("<h2>Efficiencies that others published</h2>")
    elsewhere = [
        (label, f"{least:g} to {most:g}" if least < most else f"{most:g}", of)
        for label, least, most, of in ELSEWHERE[kind]
    ]
    parts.append(_rows([("system", f"{kind} scaling", "source"), *elsewhere]))
    title = f"<title>dflowd: {kind} scaling</title>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{STYLE}</style>{"".join(parts)}</html>\n'
    )


def _hosts(found: Sequence[Measured]) -> list[str]:
    """What nodes had to themselves, if anything."""
    host = next((each.host for each in found if each.host), None)
    if host is None:
        return []
    return [
        f"<p>Each node has a host of its own, {host['cores']:g} cores and a link of {host['gbit_s']:g} Gbit/s, whose "
        f"cores, link and devices are {host['slower']:g} times slower than real ones; seconds are the hosts' own.</p>"
    ]


def _tables(found: Sequence[Measured]) -> list[str]:
    """Speed; what it cost; slots' seconds by stage; what they waited for."""
    firsts = {
        system: next(each for each in found if each.system == system) for system in _unique(m.system for m in found)
    }
    speeds: list[tuple[str, ...]] = [COLUMNS]
    costs: list[tuple[str, ...]] = [COSTS]
    for each in found:
        speeds.append(
            (
                *_head(each),
                _number(each.step_s),
                _number(each.ideal_s),
                f"{each.samples_s:.4g}",
                f"{efficiency(each, firsts[each.system]):.3f}",
                f"{each.waiting:.1%}" if each.stage_s else "",
            )
        )
        moved = [_number(each.bytes[lane] / 1e6) if lane in each.bytes else "" for lane in ("bulk", "control")]
        memory = _number(each.memory_bytes / 1e9) if each.memory_bytes else ""
        costs.append((*_head(each), *moved, _number(each.cpu_s), _number(each.daemon_cpu_s), memory))
    by_stage = _by_name([(each, each.stage_s) for each in found if each.stage_s])
    by_cause = _by_name([(each, each.waits_s) for each in found if each.waits_s])
    return [
        _rows(speeds, "Speed"),
        _rows(costs, "Bytes, processors, memory"),
        _rows(by_stage, "Slots' seconds a step by stage, all nodes together") if by_stage else "",
        _rows(by_cause, "Seconds a step in which slots waited, by cause, all nodes together") if by_cause else "",
    ]


def _head(each: Measured) -> tuple[str, str]:
    return each.system, str(each.nodes)


def _by_name(told: Sequence[tuple[Measured, Mapping[str, float]]]) -> list[tuple[str, ...]]:
    names = _unique(name for _, seconds in told for name in seconds)
    rows = [(*_head(each), *(_number(seconds.get(name, 0.0)) for name in names)) for each, seconds in told]
    return [("system", "nodes", *names), *rows] if rows else []


def _number(value: float) -> str:
    return "" if value != value else f"{value:.3g}"


def _published(profile: Profile) -> str:
    """Beside what was measured, and how it grew from the smallest size on."""
    published = profile.published
    if not published:
        return "<p>Nobody published a throughput of it.</p>"
    sizes = sorted({int(size) for by_size in published.values() for size in by_size})
    rows = [(f"as published: {profile.unit}", *(f"{size} nodes" for size in sizes))]
    for name, by_size in published.items():
        rows.append((name, *(str(by_size.get(str(size), "")) for size in sizes)))
        first = min(map(int, by_size))
        if len(by_size) > 1:  # a throughput by size
            grown = {size: by_size[str(size)] * first / (by_size[str(first)] * size) for size in map(int, by_size)}
            rows.append((f"{name}, efficiency", *(f"{grown[size]:.2f}" if size in grown else "" for size in sizes)))
    return _rows(rows)


def _rows(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    cells = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(["th"] + ["td"] * len(rows), rows, strict=False)
    ]
    titled = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{titled}' + "".join(f"<tr>{row}</tr>" for row in cells) + "</table></div>"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
