"""Draws the README's two pictures of the example: its live view near the end, and the plot that it leaves behind.

    python docs/images/draw.py [DIR]

trains it on three daemons in DIR, which takes some minutes. Letters are drawn as outlines and blocks as rectangles, so
that any renderer shows the same, whatever fonts it has.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from dflow_cli.mesh import localmesh
from dflow_cli.mesh.reach import reach
from dflow_cli.own_run.results import draw
from dflow_cli.runs.follow import Picture, follow
from dflow_cli.spec.specfile import load
from dflow_cli.submitting.submission import submit
from dflow_cli.views.screen import render

if TYPE_CHECKING:
    from rich.segment import Segment

HERE = Path(__file__).parent
SPEC = HERE.parents[1] / "examples" / "spell_backward.yaml"
LAST_STEPS = 20
COLUMNS, LINES = 104, 32
WIDE, HIGH, SIZE, MARGIN = 10, 21, 16, 14  # pixels of a cell, of letters, around all
GROUND, PLAIN = "#16181d", "#c9ccd1"
COLOURS = {"cyan": "#61afc9", "green": "#98c379", "yellow": "#e5c07b", "red": "#e06c75"}
EIGHTHS = " ▁▂▃▄▅▆▇█"
CORNERS = {"╭": (10, 21), "╮": (0, 21), "╰": (10, 0), "╯": (0, 0)}  # where in its cell a corner ends: x, and y


class LatePicture:
    """A viewer that keeps a picture of the last steps: the latest of those in which most nodes ran something."""

    look_s = 0.5

    def __init__(self) -> None:
        self.picture: Picture | None = None

    def show(self, picture: Picture) -> None:
        left = picture.outcome.steps - picture.outcome.step
        if 0 < left <= LAST_STEPS and (self.picture is None or len(picture.doing) >= len(self.picture.doing)):
            self.picture = copy(picture)


def main(folder: Path) -> None:
    viewer, loaded = LatePicture(), load(SPEC)
    localmesh.start(folder, 3, for_one_run=True)
    try:
        with reach(folder) as client:
            run = submit(client, loaded)
            follow(client, folder, run, viewer)
            draw(client, run, HERE / "spell_backward.png")
    finally:
        localmesh.stop(folder)
    if viewer.picture is not None:
        (HERE / "spell_backward.svg").write_text(svg(viewer.picture))


def svg(picture: Picture) -> str:
    """The live view as a terminal of COLUMNS x LINES shows it."""
    from rich.console import Console

    console = Console(width=COLUMNS, height=LINES)
    rows = console.render_lines(render(picture, COLUMNS, LINES))
    width, height = COLUMNS * WIDE + 2 * MARGIN, len(rows) * HIGH + 2 * MARGIN
    glyphs: dict[str, str] = {}
    shapes = [shape for row, line in enumerate(rows) for shape in _line(line, row * HIGH, glyphs)]
    outcome = picture.outcome
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}">',
            f"<title>{escape(f'{outcome.name}: step {outcome.step} of {outcome.steps}')}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>',
            "<defs>",
            *(f'<path id="{name}" d="{outline}"/>' for name, outline in glyphs.items()),
            "</defs>",
            f'<g transform="translate({MARGIN},{MARGIN})">',
            *shapes,
            "</g>",
            "</svg>\n",
        ]
    )


def _line(segments: list[Segment], top: int, glyphs: dict[str, str]) -> Iterator[str]:
    """Shapes of one line, those of one style together."""
    left = 0
    for segment in segments:
        style = segment.style
        colour = COLOURS.get(style.color.name, PLAIN) if style and style.color else PLAIN
        shapes = [
            _shape(each, left + place * WIDE, top, bool(style and style.bold), colour, glyphs)
            for place, each in enumerate(segment.text)
        ]
        if any(shapes):
            yield f'<g fill="{colour}">{"".join(shapes)}</g>'
        left += WIDE * len(segment.text)


def _shape(each: str, left: int, top: int, is_bold: bool, colour: str, glyphs: dict[str, str]) -> str:
    middle = top + HIGH // 2
    if each.isspace():
        return ""
    if each in EIGHTHS:
        high = round(HIGH * EIGHTHS.index(each) / 8, 1)
        return f'<rect x="{left}" y="{top + HIGH - high:g}" width="{WIDE + 0.3}" height="{high:g}"/>'
    if each in "━╌─":
        wide, high = {"━": (WIDE + 0.3, 3), "╌": (WIDE / 2, 1), "─": (WIDE + 0.3, 1)}[each]
        return f'<rect x="{left}" y="{middle - high // 2}" width="{wide:g}" height="{high}"/>'
    if each == "│":
        return f'<rect x="{left + WIDE // 2}" y="{top}" width="1" height="{HIGH + 0.3}"/>'
    if each in CORNERS:
        x, y = CORNERS[each]
        bend = f"M{left + x} {middle + 0.5} Q{left + 5.5} {middle + 0.5} {left + 5.5} {top + y}"
        return f'<path d="{bend}" fill="none" stroke="{colour}"/>'
    name = f"{'b' if is_bold else 'r'}{ord(each)}"
    if name not in glyphs:
        glyphs[name] = _outline(each, is_bold)
    return f'<use xlink:href="#{name}" x="{left}" y="{top + 16}"/>'


def _outline(each: str, is_bold: bool) -> str:
    """A letter of DejaVu Sans Mono, which matplotlib brings along, as a path from its base line."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans Mono", weight="bold" if is_bold else "normal")
    steps = {1: "M", 2: "L", 3: "Q", 4: "C"}
    parts = []
    for points, code in TextPath((0, 0), each, size=SIZE, prop=font).iter_segments():
        numbers = [f"{-value if index % 2 else value:.1f}" for index, value in enumerate(points)]
        parts.append("Z" if code == 79 else steps[int(code)] + " ".join(numbers))
    return "".join(parts)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).absolute())
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))
