"""What Prometheus is told: the names that the page promises, of what the rooms know, with bounded labels."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from dflow_protocols.events import Began, Broke, Finished, Report, Start
from dflow_protocols.names import NodeId, Partition, RunId, TaskKey
from dflow_protocols.pipeline.schedule import Schedule
from dflow_protocols.work import ChainWork, Done, Failed, Origin
from dflowd.exporter.families import MOST_RUNS, Exposition, Sources
from dflowd.observe.counts import MOST_STAGES, OTHERS
from dflowd.observe.idle import Idle
from dflowd.observe.journal import Journal
from dflowd.observe.log import ReportLog
from dflowd.observe.metrics import MetricsBook
from dflowd.observe.problems import Problems
from dflowd.observe.recorder import Recorder
from dflowd.observe.timeline import Timeline
from dflowd.service.dispatch import Myself
from dflowd.shards.usage import Usage
from dflowd.transport.traffic import Traffic
from tests.support.repository import ROOT

ME = NodeId("aa" * 16)
GPU = {"memory_used": 5, "memory_total": 9, "busy": 50, "celsius": 60, "ecc_errors": None, "fell_off": False}


class Member:
    def __init__(self, state: str) -> None:
        self.state, self.is_up = state, state == "alive"
        self.claim = SimpleNamespace(drained=True)  # what was said of one that is gone is no matter


class Known:
    def __init__(self, state: str = "active") -> None:
        self.state = state

    @property
    def schedule(self) -> Schedule:
        return Schedule(9, {}, range(10))

    def summary(self) -> dict[str, Any]:
        return {"state": self.state, "name": "spell", "step": 4, "steps": 9}


class View:
    """Of a node: three members, and these runs."""

    def __init__(self, runs: dict[RunId, Known]) -> None:
        self.runs = runs
        self.membership = self
        self.members = {str(number): Member(state) for number, state in enumerate(("alive", "alive", "dead"))}

    def withdrawn(self, member: NodeId) -> list[dict[str, str]]:
        return []

    def unfinished(self, now: float) -> dict[str, int]:
        return {}

    def silent_s(self, now: float, member: NodeId) -> float | None:
        return None


def sources(folder: Path, **runs: Known) -> Sources:
    journal = Journal(folder, 64 << 20, print)
    recorder = Recorder(
        ReportLog(io.StringIO(), "error"),
        Timeline(journal, 1.0),
        MetricsBook(journal),
        Problems(),
        Idle(1, 0),
        lambda: 2.0,
    )
    slot = {"kind": "device", "lost": "", "task": "", "pid": 0}
    return Sources(
        me=Myself(ME, "n0", "0.1", "tcp://a:1", "tcp://a:2", 1, 1.0),
        node=View({RunId(run): known for run, known in runs.items()}),
        recorder=recorder,
        engines=lambda: {
            "slots": [slot, slot | {"task": "3/roll/p1", "pid": 7}, slot | {"lost": "fell"}],
            "waiting": 2,
        },
        usage=lambda: Usage(100, 40, 20, 5, 3, 0, 0, {}),
        disk_limit=lambda: 1000,
        traffic=lambda: {"bulk": {"b": Traffic(3, 4), "c": Traffic(5, 6)}, "control": {}},
        gpus=lambda: [{**GPU, "age_s": 1.0}],
        lag_s=lambda: 0.25,
    )


def told(found: Sources) -> dict[str, dict[tuple[str, ...], float]]:
    """Name -> values of the labels, by these' names -> value, of this daemon's own families."""
    families = text_string_to_metric_families(Exposition(found)().decode())
    own = (sample for family in families for sample in family.samples if sample.name.startswith("dflowd_"))
    values: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in own:
        values.setdefault(sample.name, {})[tuple(sample.labels[label] for label in sorted(sample.labels))] = (
            sample.value
        )
    return values


def test_what_the_rooms_know_is_told(tmp_path: Path) -> None:
    found = sources(tmp_path, abc=Known(), old=Known("done"))
    found.recorder.metrics.advance(
        RunId("abc"),
        4,
        "v",
        8,
        {"reward_sum": 3.0, "rewarded": 4.0, "correct/held": 1.0, "evaluated/held": 2.0},
        1.0,
        2.0,
        {"sampler": (0.5, 2.0)},
    )
    found.recorder.report(Report("membership.died", {"node": "b"}))
    values = told(found)
    assert values["dflowd_members"] == {("alive",): 2, ("dead",): 1}
    assert values["dflowd_members_drained"] == {(): 2}
    assert values["dflowd_runs"] == {("active",): 1, ("done",): 1}
    assert values["dflowd_run_step"] == {("spell", "abc"): 4}
    assert values["dflowd_run_figure"][("reward_mean", "abc", "")] == 0.75
    assert values["dflowd_run_figure"][("accuracy", "abc", "held")] == 0.5
    assert values["dflowd_run_idle_ratio"] == {("sampler", "abc"): 0.25}
    assert values["dflowd_reports_total"] == {("info", "membership.died"): 1}
    assert values["dflowd_shards_bytes"] == {("disk",): 20, ("memory",): 40, ("recycled",): 5}
    assert values["dflowd_shards_limit_bytes"] == {("disk",): 1000, ("memory",): 100}
    assert values["dflowd_traffic_bytes_total"][("sent", "bulk")] == 8
    assert values["dflowd_slots"] == {("device", "busy"): 1, ("device", "drained"): 1, ("device", "empty"): 1}
    assert values["dflowd_gpu_busy_ratio"] == {("0",): 0.5}
    assert "dflowd_gpu_ecc_errors" not in values
    assert values["dflowd_loop_lag_seconds"] == {(): 0.25}


def test_tasks_are_counted_by_how_they_came_and_ended(tmp_path: Path) -> None:
    """So a rule can see stealing, and failures by their kind."""
    found = sources(tmp_path)
    work = ChainWork(3, ("roll",), 1, ())
    asked = Start(1, RunId("abc"), TaskKey(3, "roll", Partition(1)), work, origin=Origin.STOLEN)
    for call, end in ((1, Finished(1, Done(()))), (2, Broke(2, Failed("user", "odd")))):
        found.recorder.start(replace(asked, call=call))
        found.recorder.observe(Began(call))
        found.recorder.observe(end)
    assert told(found)["dflowd_tasks_total"] == {("stolen", "done", "roll"): 1, ("stolen", "user", "roll"): 1}


def test_no_user_can_make_more_series_than_there_is_room_for(tmp_path: Path) -> None:
    """Each series costs the one who scrapes for weeks."""
    found = sources(tmp_path, **{f"run{number}": Known() for number in range(MOST_RUNS + 5)})
    for number in range(MOST_STAGES + 5):
        task = TaskKey(0, f"s{number}", Partition(0))
        found.recorder.counts.end(Start(number, RunId("a"), task, ChainWork(0, ("s",), 0, ())), "done")
    values = told(found)
    assert len(values["dflowd_run_step"]) == MOST_RUNS
    assert len(values["dflowd_tasks_total"]) == MOST_STAGES + 1
    assert values["dflowd_tasks_total"][("dealt", "done", OTHERS)] == 5


def test_the_page_has_every_metric_and_no_other(tmp_path: Path) -> None:
    """A name that is gone breaks a rule in silence."""
    found = sources(tmp_path, abc=Known())
    found.recorder.metrics.advance(RunId("abc"), 4, "v", 8, {"reward_sum": 3.0, "rewarded": 4.0}, 1.0, 2.0)
    text = Exposition(found)().decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE dflowd_")}
    page = (ROOT / "docs" / "monitoring.md").read_text()
    table = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `dflowd_"))
    assert set(re.findall(r"`(dflowd_\w+)`", table)) == names
    used = set(re.findall(r"dflowd_\w+", page.partition("## Alert rules")[2]))
    assert used <= names


def test_the_pages_rules_are_read_as_rules() -> None:
    """Who copies them is told of no mistake until Prometheus does not start."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    scrape, rules = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    assert scrape["scrape_configs"][0]["static_configs"]
    (group,) = rules["groups"]
    assert all(rule["alert"].startswith("Dflowd") and rule["expr"] for rule in group["rules"])
