"""The live run: a picture that redraws itself on a terminal, plain lines elsewhere. Both on stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol, Self

from ..output import about, note, seconds
from ..runs.follow import Picture
from .screen import render

if TYPE_CHECKING:
    from rich.live import Live

LINE_S = 5.0  # between two plain lines
REDRAW_S = 1.0


class View(Protocol):
    @property
    def look_s(self) -> float: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def show(self, picture: Picture) -> None: ...


def progress() -> View:
    """The view that suits stderr: a terminal that can move its cursor gets the picture."""
    can_draw = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return LiveView() if can_draw else PlainView()


class PlainView:
    """Lines for a log file: every few seconds one, and one for each evaluation."""

    look_s = LINE_S

    def __init__(self) -> None:
        self._shown = (-1, "")
        self._evals = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def show(self, picture: Picture) -> None:
        outcome = picture.outcome
        for row in outcome.evals[self._evals :]:
            note(f"step {row['step']}: accuracy {float(row['accuracy']):.3f} ({row.get('stage') or 'held out'})")
        self._evals = len(outcome.evals)
        if (outcome.step, outcome.remark) != self._shown:
            self._shown = (outcome.step, outcome.remark)
            note(line(picture))


def line(picture: Picture) -> str:
    """How the run stands, in one line."""
    outcome = picture.outcome
    parts = [f"step {outcome.step}/{outcome.steps}"]
    named = {"reward_mean": "reward", "loss": "loss", "entropy": "entropy", "tokens_per_s": "tokens/s"}
    for name, label in named.items():
        if (value := picture.newest.get(name)) is not None:
            parts.append(f"{label} {value:.0f}" if name == "tokens_per_s" else f"{label} {value:.3f}")
        parts += [f"{label}/{stage} {value:.3f}" for stage, value in picture.by_stage(name).items()]
    if (pace := picture.newest.get("step_s")) is not None:
        parts.append(f"{seconds(pace)} a step")
    if not outcome.is_final and outcome.remark:
        parts.append(outcome.remark)
    elif not outcome.is_final and (left := picture.left_s()):
        parts.append(f"{about(left)} left")
    return "  ".join(parts)


class LiveView:
    """The whole picture, redrawn in place; its last state stays on the screen."""

    look_s = REDRAW_S

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, picture: Picture) -> None:
        if self._live is not None:
            size = self._console.size  # as it is now: a terminal may be drawn larger while the run goes on
            self._live.update(render(picture, size.width, size.height - 1), refresh=True)
