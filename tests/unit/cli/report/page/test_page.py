"""The page: whole in one file, safe whatever a model or a user wrote, and honest about what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from dflow_cli.report.figures import report_of
from dflow_cli.report.gathered import gather
from dflow_cli.report.page.page import render
from tests.unit.cli.fakedaemon import RUN, told_rows, told_run
from tests.unit.cli.report.made import Mesh, task

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\x00\u202e'\""


def page(**changes: Any) -> str:
    return render(report_of(gather(Mesh(changes), RUN)))


class Tags(HTMLParser):
    """Every element with its attributes; and that each that is opened is closed in its order."""

    EMPTY = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_names_no_other_file_and_runs_nothing() -> None:
    """It opens years later, on a machine without a network, and may be mailed to anybody."""
    tags = Tags(page())
    assert not tags.open
    assert not {tag for tag, _ in tags.found} & {"script", "img", "link", "iframe", "object", "form", "a"}
    named = {name for _, attributes in tags.found for name in attributes}
    assert not {name for name in named if name in ("src", "href", "style") or name.startswith("on")}
    (policy,) = [found["content"] or "" for tag, found in tags.found if found.get("http-equiv")]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "http://" not in page()
    assert "https://" not in page()


def test_what_models_and_users_wrote_is_text() -> None:
    """A completion is anybody's: it may be made to look like a page."""
    samples = [{"step": step, "prompt": HOSTILE, "completion": HOSTILE, "reward": 0.0} for step in (1, 5)]
    tasks = [task(f"0/{stage}/p0", HOSTILE, 100.0, 101.0) for stage in ("roll", "<b>")]
    events = [{"time_s": 100.5, "node": HOSTILE, "name": "task.failed", "fields": {"run": RUN, "error": HOSTILE}}]
    text = page(
        run=told_run(
            name=HOSTILE, error=HOSTILE, submitted_s=99.0, evals=[{"step": 1, "accuracy": 0.5, "stage": HOSTILE}]
        ),
        samples={"samples": samples},
        tasks={"tasks": tasks},
        nodes={"nodes": [{"name": HOSTILE, "device": HOSTILE, "control": HOSTILE}], "missing": [HOSTILE]},
        events={"events": events, "names": {}},
    )
    assert "<script" not in text
    assert "<img" not in text
    assert "\x00" not in text
    assert not Tags(text).open
    assert text.count("&lt;script&gt;") >= 8


def test_what_cannot_be_printed_is_told_by_its_number() -> None:
    """A surrogate that stands alone (JSON allows it, UTF-8 does not), what turns a line around, a bell."""
    said = {"prompt": "日本\u3000語", "completion": "a\ud800b\u202ec\x07", "reward": 0.0}
    text = page(samples={"samples": [{"step": step, **said} for step in (1, 5)]})
    assert "a\\xd800b\\x202ec\\x07" in text
    assert "日本\u3000語" in text
    text.encode()


def test_every_drawing_is_well_formed_and_says_what_it_shows() -> None:
    """Who cannot see it hears that; and no number in it is none."""
    drawings = re.findall(r"<svg.*?</svg>", page(), flags=re.DOTALL)
    assert len(drawings) > 8
    for text in drawings:
        drawing = ElementTree.fromstring(text)
        assert drawing.get("aria-label") or drawing.get("aria-hidden")
        assert not re.search(r'="[^"]*\b(nan|inf)\b', text)


def test_the_bottleneck_stands_in_a_sentence_with_what_would_help() -> None:
    """Before any table."""
    text = re.sub(r"<[^>]+>", "", page())
    assert "learn takes" not in text.partition("roll takes")[0]
    assert "roll takes 39 % of the time of the steps (2.00 s in each of the 6 steps that have it)" in text


def test_a_run_that_goes_on_is_told_as_one() -> None:
    """Half a run must not be taken for one that ended."""
    assert "This run goes on" in page(run=told_run(state="active", step=3, submitted_s=98.0))
    assert "This run goes on" not in page()


def test_what_a_limit_decided_is_told_with_its_step() -> None:
    """From there on another run may find other weights."""
    text = page(run=told_run(reproducibility="replay", since_step=3, submitted_s=98.0))
    assert "Reproducibility: replay; replay since step 3" in text


@pytest.mark.parametrize(
    "nothing",
    [
        {"tasks": {"tasks": []}},
        {"metrics": {"rows": []}},
        {"nodes": {"nodes": []}},
        {"run": told_run(state="active", step=0, evals=[], wall_s=0.0)},
        {
            "tasks": {"tasks": []},
            "metrics": {"rows": []},
            "nodes": {"nodes": []},
            "run": told_run(evals=[], steps=0, name="", weights=None, version=None),
        },
    ],
)
def test_what_is_not_known_is_left_out(nothing: Mapping[str, Any]) -> None:
    """A run that has just begun, one whose tasks were dropped, one of an older release."""
    assert not Tags(page(**nothing)).open


def test_a_long_run_on_many_nodes_fits_into_a_page() -> None:
    """Of tens of thousands of tasks the whole run shows shares, and single tasks of some steps."""
    tasks = []
    for step in range(230):
        at = 100.0 + 5.2 * step
        for node in range(8):
            tasks += [task(f"{step}/roll/p{8 * node + n}", f"n{node}", at + n / 8, at + (n + 1) / 8) for n in range(8)]
            tasks.append(task(f"{step}/learn/b{node}-{node + 1}", f"n{node}", at + 2.0, at + 3.0))
            tasks += [
                task(f"{step}/learn/s{8 * node + n}-{8 * node + n + 1}", f"n{node}", at + 3.1, at + 3.2)
                for n in range(8)
            ]
            tasks.append(task(f"{step}/learn/apply", f"n{node}", at + 4.0, at + 5.0))
    nodes = [{"name": f"n{node}", "slots": 1} for node in range(8)]
    text = page(tasks={"tasks": tasks}, nodes={"nodes": nodes}, metrics={"rows": told_rows(230)})
    assert len(text) < 1_500_000
    assert "Step 114, the median one of 230 such steps" in text
