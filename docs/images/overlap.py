"""Draws the picture of sampling while training: four daemons with emulated engines, of which two sample and two train.

    python docs/images/overlap.py

runs the meshes of `python -m benchmarks lag`, first with rollouts of the newest version, then of whatever version there
is, and draws of each what its nodes did, as the section of `dflow report` does.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from benchmarks.lag import spec, told
from dflow_cli.report.nodes import NodeLine
from dflow_cli.report.page.overlap import successive
from dflow_cli.report.page.shapes import Palette, Picture, Rect, Text
from dflow_cli.report.spans import spans_of

HERE = Path(__file__).parent
ROLL_S, LEARN_S, STEPS = 2.0, 1.5, 8
LOOSE = 2  # steps that rollouts may be behind
HIGH = 2.0  # inches of each of the two
STYLES = {"stay": "#eceff3", "once": "#9aa3ae", "s0": "#3b6fd4", "s1": "#d97706", "s2": "#2c9a55", "s3": "#c2415d"}
PALER = {"reduce": 0.72, "apply": 0.45}


def main() -> None:
    figure, places = pyplot.subplots(2, 1, figsize=(9.6, 2 * HIGH))
    titles = ("lag 0: sampling, then training", f"async, rollouts at most {LOOSE} steps behind: both at once")
    for place, title, most in zip(places, titles, (0, LOOSE), strict=True):
        draw(place, picture_of(most))
        place.set_title(title, fontsize=10, loc="left")
    figure.tight_layout()
    figure.savefig(HERE / "overlap.png", dpi=110, metadata={"Software": None})


def picture_of(max_staleness: int) -> Picture:
    """Of steps in the middle of a run."""
    with tempfile.TemporaryDirectory() as folder:
        _, tasks = told(Path(folder), spec(STEPS, 0, max_staleness, ROLL_S, LEARN_S))
    spans = spans_of(tasks, (), {})
    nodes = [line(name) for name in sorted({span.node for span in spans})]
    picture = successive(spans, nodes, Palette({"roll": 0, "score": 2, "adv": 3, "learn": 1}))
    assert picture is not None
    return picture


def line(name: str) -> NodeLine:
    """A node of one slot, of which nothing else is drawn."""
    return NodeLine(name, "", "", 1, "", (), 0.0, 0, 0, 0, 0, 0.0, 0.0, None)


def draw(place: Axes, picture: Picture) -> None:
    """Its shapes; pixels of the page are the axes' units."""
    place.set_xlim(0, picture.width)
    place.set_ylim(picture.height, 0)
    place.axis("off")
    for shape in picture.shapes:
        if isinstance(shape, Rect):
            classes = shape.style.split()
            paler = next((PALER[name] for name in classes if name in PALER), 1.0)
            corner, colour = (shape.x, shape.y), STYLES[classes[0]]
            place.add_patch(Rectangle(corner, shape.width, shape.height, color=colour, alpha=paler, linewidth=0))
        elif isinstance(shape, Text):
            colour = "white" if shape.style == "inside" else "black"
            edge = [withStroke(linewidth=2, foreground="white")] if shape.style == "over" else []
            anchor = {"start": "left", "middle": "center", "end": "right"}[shape.anchor]
            place.text(shape.x, shape.y, shape.text, fontsize=6.5, color=colour, ha=anchor, path_effects=edge)
        elif shape.style == "mark":
            points = [tuple(map(float, point.split())) for point in re.split("[ML]", shape.line)[1:]]
            place.plot(*zip(*points, strict=True), color="black", linewidth=0.8, linestyle=":")


if __name__ == "__main__":
    main()
