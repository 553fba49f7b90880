"""The report as HTML: one file that names no other, runs no script, and may load nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...output import seconds
from ..bottleneck import duration, percent
from ..figures import Figures, Report
from ..presence import Incident
from ..spans import Phase
from .charts import Curve, column, curves, share_bar, stacked
from .graph import graph
from .overlap import overlap
from .shapes import Palette, Picture, number
from .timeline import one_step, steps_to_show, whole

HERE = Path(__file__).parent
TOLD_INCIDENTS = 60
MOST_CHARACTERS = 700  # of a prompt or a completion
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CURVES = (
    ("loss", "loss", "loss", False),
    ("entropy", "entropy", "entropy, nats a token", False),
    ("kl", "kl", "KL to the reference, nats a token", True),
    ("completion_length_mean", "length", "completion length, tokens", True),
    ("grad_norm", "gradient norm", "norm of the gradient before clipping", True),
    ("learning_rate", "learning rate", "learning rate", True),
    ("tokens_per_s", "tokens a second", "tokens generated a second", True),
    ("step_s", "step", "seconds a step", True),
)
"""Figure of a row, its label, the title, whether the axis begins at 0."""


def render(report: Report) -> str:
    """The whole page. Texts of users and models are escaped by the template, and nowhere else."""
    style = (HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    names, incidents = names_of(report), _incidents(report)
    html: str = _template().render(
        figures=report.figures,
        style=style,
        digest=digest,
        release=version("dflowd"),
        legend=[(name, report_palette(names).style(name)) for name in names],
        more_incidents=max(len(incidents) - TOLD_INCIDENTS, 0),
        incidents=incidents[:TOLD_INCIDENTS],
        notes=notes_of(report),
        silent=[node.name for node in report.figures.nodes if not node.tasks],
        **_pictures(report, names),
    )
    return html


def write(path: Path, text: str) -> None:
    """Raises OSError. A character that is none (half of a surrogate pair) becomes a question mark."""
    path.write_bytes(text.encode("utf-8", "replace"))


def _incidents(report: Report) -> list[Incident]:
    """Those of the time in which the run worked: that daemons start before it and stop after it befalls no run."""
    ended_s = max((span.end for span in report.spans), default=report.figures.ended_s)
    return [it for it in report.figures.incidents if report.figures.began_s <= it.time_s <= ended_s]


def names_of(report: Report) -> list[str]:
    """What time is counted as, in the pipeline's order, or where that is not known in the order in which it ran."""
    first: dict[str, float] = {}
    for span in report.spans:
        if span.phase is not Phase.OTHER:
            first.setdefault(span.stage, span.begin)
    stages = report.gathered.pipeline.stages if report.gathered.pipeline is not None else ()
    order = [stage.id for stage in stages] or sorted(first, key=lambda stage: first[stage])
    parts = {load.name for load in report.figures.loads}
    own = [f"{stage}{part}" for stage in order for part in ("", ".reduce", ".apply")]
    return [name for name in own if name in parts or name in order] + sorted(parts - set(own))


def report_palette(names: Sequence[str]) -> Palette:
    stages = [name for name in names if "." not in name and name not in ("init", "load", "save")]
    return Palette({stage: place for place, stage in enumerate(stages)})


def _pictures(report: Report, names: Sequence[str]) -> Mapping[str, Any]:
    figures, palette = report.figures, report_palette(names)
    stages = report.gathered.pipeline.stages if report.gathered.pipeline is not None else ()
    spans, nodes = report.spans, figures.nodes
    shown = steps_to_show(spans)
    on_path = [(load.name, load.path_s, palette.style(load.name)) for load in figures.loads if load.share > 0]
    waiting = sum(wait.seconds for wait in figures.waits if wait.is_of_steps)
    return {
        "graph": graph(stages, figures.loads, palette),
        "shares": share_bar("the critical path by stage", [*on_path, ("waiting", waiting, "wait")]),
        "whole": whole(spans, nodes, figures.incidents, (figures.began_s, figures.ended_s), palette),
        "overlap": overlap(spans, nodes, palette),
        "steps": [(step, why, one_step(spans, nodes, step, palette)) for step, why in shown],
        "curves": _curves(report, names, palette),
    }


def _curves(report: Report, names: Sequence[str], palette: Palette) -> list[tuple[str, Picture]]:
    """(title, picture) of all that the run has figures of."""
    rows, figures = report.gathered.rows, report.figures
    band = [
        (float(row["step"]), float(row["reward_mean"]) - std, float(row["reward_mean"]) + std)
        for row in rows
        if row.get("reward_mean") is not None and (std := float(row.get("reward_std") or 0.0)) >= 0
    ]
    each = sorted({name for row in rows for name in row if name.startswith("reward_mean/")})
    rewards = [Curve("reward", column(rows, "reward_mean"), "plain")]
    rewards += [Curve(name.partition("/")[2], column(rows, name), f"s{at}") for at, name in enumerate(each)]
    held_out = [
        Curve(
            stage or "held out",
            [(float(row["step"]), float(row["accuracy"])) for row in own],
            palette.style(stage),
            True,
        )
        for stage, own in report.gathered.outcome.evals_by_stage.items()
    ]
    title = "reward, mean and standard deviation"
    if each:
        title += f": all, {', '.join(name.partition('/')[2] for name in each)}"
    found = [
        (title, curves("mean reward by step", rewards, band=band)),
        ("held-out accuracy", curves("held-out accuracy by step", held_out, zero=True, most=1.0)),
    ]
    for name, label, about, zero in _CURVES:
        found.append((about, curves(f"{about} by step", [Curve(label, column(rows, name), "plain")], zero=zero)))
    critical = stacked("critical path of each step by stage", figures.step_paths, names, palette)
    found.append(("critical path of a step, seconds", critical))
    return [(about, picture) for about, picture in found if picture is not None]


def notes_of(report: Report) -> list[str]:
    """What a reader is to know of the figures: from where they are, what is missing, how clocks were dealt with."""
    figures = report.figures
    source = f"the folder {figures.folder}, as no daemon ran" if figures.folder else "the daemons of the mesh"
    notes = [f"The figures were asked of {source}."]
    if figures.missing:
        notes.append(f"No answer came from {', '.join(figures.missing)}: their tasks and reports are not in it.")
    if figures.first_step > 0:
        notes.append(
            f"Daemons keep the latest tasks of a run: these are of step {figures.first_step} and later. The critical "
            "path, stages, shares of the work and latencies are of them alone."
        )
    if report.gathered.pipeline is None:
        notes.append("The pipeline is not kept, or of another release, so that its graph is not drawn.")
    notes.append(_of_clocks(figures))
    notes.append(
        "The critical path is the one chain of tasks and waits that ends with the run's last task: each task began "
        "when the last of what it waited for had ended, on its own node or, between two phases of a step, on any. Its "
        "parts add up to the time of the run. Shares are of the time of the steps: what is done once a run (start-up, "
        "the first weights) is left out."
    )
    notes.append(
        "Node-hours count every member while the run went on, whether or not it had work: from when daemons reported "
        "that it came and went, and from the tasks that it did. Of daemons that remember their latest reports only, an "
        "earlier absence is not seen."
    )
    return notes


def _of_clocks(figures: Figures) -> str:
    if not figures.ahead:
        return "Clocks of nodes are compared by the order of work, which contradicts none: they are taken as they are."
    told = ", ".join(f"{node} {abs(by):.3f} s {'ahead' if by > 0 else 'behind'}" for node, by in figures.ahead.items())
    first = min(node.name for node in figures.nodes)
    return (
        f"By the order of work these clocks differ from that of {first} by this at least, which is taken off: {told}."
    )


# What the template calls ------------------------------------------------------------------------------------------


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters = environment.filters | {
        "shown": shown,
        "date": date,
        "seconds": seconds,
        "duration": duration,
        "percent": percent,
        "number": number,
        "coded": coded,
        "rate": rate,
    }
    return environment.get_template("report.html")


def date(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))


def rate(value: float) -> str:
    """`0.42`, `12.3`, `1,667`."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def coded(text: str) -> list[tuple[str, bool]]:
    """A sentence in pieces, and which of them stand between backticks."""
    return [(piece, at % 2 == 1) for at, piece in enumerate(text.split("`"))]


def shown(text: str) -> str:
    """A text of anybody, as far as it is not too long."""
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}… ({len(text) - MOST_CHARACTERS} characters more)"


def printable(value: object) -> object:
    """What cannot be printed, or would turn the text around it, by its number; what the template made itself stays."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
