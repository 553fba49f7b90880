"""What a client may rely on where no mesh is needed to show it: names of runs, and answers that fit a frame."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from dflow_protocols.events import Advanced, Report, Start
from dflow_protocols.names import NodeId, Partition, RunId, TaskKey, VersionId
from dflow_protocols.pipeline.schedule import Schedule
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.wire.frame import decode_frame, encode_frame
from dflow_protocols.wire.steps import Head
from dflow_protocols.work import ChainWork, Failed
from dflowd.driver import Driver
from dflowd.observe.idle import Idle
from dflowd.observe.journal import Journal
from dflowd.observe.log import ReportLog
from dflowd.observe.metrics import SAMPLES_KEPT, MetricsBook
from dflowd.observe.problems import Problems
from dflowd.observe.recorder import Recorder
from dflowd.observe.timeline import Timeline
from dflowd.process.host import Host
from dflowd.service.dispatch import Service
from dflowd.service.runs import RunAnswers
from dflowd.service.standing import StandingProblems
from dflowd.service.work import WorkAnswers
from dflowd.state.disk import KEY as DISK

RUN = "ab" * 16
ME, CLIENT = NodeId("aa" * 16), NodeId("cc" * 16)


@dataclass
class Alone:
    """A membership of one."""

    members: Mapping[NodeId, Any] = field(default_factory=dict)
    silenced_by: Any = None
    reach: Any = field(default_factory=lambda: SimpleNamespace(complaints={}, unreached={}))
    is_unhealthy: bool = False

    def alive(self) -> tuple[NodeId, ...]:
        return (ME,)


@dataclass
class Known:
    """A run as the node tells of it."""

    step: int = 0
    state: str = "active"
    schedule: Schedule = field(default_factory=lambda: Schedule(999, {}, range(1000)))

    def summary(self) -> dict[str, Any]:
        return {
            "run": "ab" * 16,
            "state": self.state,
            "step": self.step,
            "steps": 9,
            "spec": b"x" * 100,
            "submitter": CLIENT,
        }


@dataclass
class View:
    runs: dict[RunId, Known] = field(default_factory=dict)
    membership: Alone = field(default_factory=Alone)

    def withdrawn(self, member: NodeId) -> list[dict[str, str]]:
        return []

    def unfinished(self, now: float) -> dict[str, int]:
        return {}

    def silent_s(self, now: float, member: NodeId) -> float | None:
        return None


class Daemon:
    """A service of one node, and a client in front of it."""

    def __init__(self, folder: Path, *runs: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.view = View({RunId(run): Known() for run in runs})
        log, self.journal = ReportLog(io.StringIO(), "info"), Journal(folder, 64 << 20, print)
        timeline, book = Timeline(self.journal, 1.0), MetricsBook(self.journal)
        self.recorder = Recorder(log, timeline, book, Problems(), Idle(1, 0), self.loop.time)
        self.service = Service(
            Host(self.loop, print, self.recorder.report, self.loop.time),
            ME,
            self.view,
            self.recorder,
            lambda *_: False,
            Driver(self.loop).written,
            lambda key: "anna",
        )
        RunAnswers(self.service)
        WorkAnswers(self.service, slots=1)

    async def ask(self, method: str, role: str = "client", **params: Any) -> Response:
        answer: asyncio.Future[Response] = self.loop.create_future()
        self.service.on_request(CLIENT, role, Request(7, method, msgpack.packb(params), 5.0), answer.set_result)
        return await asyncio.wait_for(answer, 30)


async def test_digits_that_two_runs_share_name_neither(tmp_path: Path) -> None:
    """Cancelling the wrong run cannot be undone."""
    daemon = Daemon(tmp_path, "abcd1" + "0" * 27, "abcd2" + "0" * 27)
    response = await daemon.ask("cancel", run="abcd")
    assert not response.ok
    assert msgpack.unpackb(response.value) == {
        "what": "`abcd` may be 2 runs",
        "hint": f"give more digits: abcd1{'0' * 27}, abcd2{'0' * 27}",
        "exit": 2,
    }
    assert (await daemon.ask("run", run="abcd1")).ok


async def test_who_waits_for_a_run_that_is_forgotten_is_told_so(tmp_path: Path) -> None:
    """A month after its end, or as others crowd it out: no fault of the daemon, which the client could do nothing
    about."""
    daemon = Daemon(tmp_path)

    class Forgotten(Known):
        """Gone as soon as it was looked at."""

        def summary(self) -> dict[str, Any]:
            daemon.view.runs.clear()
            return super().summary()

    daemon.view.runs[RunId(RUN)] = Forgotten()
    response = await daemon.ask("wait", run=RUN, known_step=3)
    assert not response.ok
    assert "is known here" in msgpack.unpackb(response.value)["what"]


async def test_a_list_of_runs_does_not_carry_their_specs(tmp_path: Path) -> None:
    """A spec may be a megabyte, and there are many runs."""
    response = await Daemon(tmp_path, "ab" * 16).ask("runs")
    assert "spec" not in msgpack.unpackb(response.value)["runs"][0]


async def test_an_answer_that_is_too_long_keeps_its_latest_part(tmp_path: Path) -> None:
    """A frame has a limit, and of a long run the newest tasks are what people look for."""
    daemon = Daemon(tmp_path, "ab" * 16)
    for number in range(400):
        sample = {"prompt": "x" * 20_000, "completion": str(number), "reward": 1.0}
        daemon.recorder.metrics.add_samples(RunId("ab" * 16), number, [sample])
    response = await daemon.ask("samples", run="ab" * 16, limit=2000)
    assert decode_frame(encode_frame(None, (response,))).messages == (response,)
    value = msgpack.unpackb(response.value)
    assert value["cut"]
    assert value["samples"][-1]["step"] == 399
    assert len(value["samples"]) >= 100


async def test_samples_of_a_step_are_found_however_long_ago_it_was(tmp_path: Path) -> None:
    """What memory holds of a long run is the newest part, and a plot raises questions about any."""
    daemon = Daemon(tmp_path, "ab" * 16)
    for number in range(2 * SAMPLES_KEPT):
        sample = {"prompt": "2 + 2", "completion": str(number), "answer": "4", "reward": 0.0}
        daemon.recorder.metrics.add_samples(RunId("ab" * 16), number, [sample])
    response = await daemon.ask("samples", run="ab" * 16, step=3)
    (found,) = msgpack.unpackb(response.value)["samples"]
    assert (found["step"], found["completion"], found["answer"]) == (3, "3", "4")


@pytest.mark.parametrize("params", [b"\x01", b"\xc1", b"\xff" * 40])
async def test_parameters_that_are_no_map_are_refused(tmp_path: Path, params: bytes) -> None:
    """Whatever a client sends, it gets an answer."""
    daemon = Daemon(tmp_path)
    answer: asyncio.Future[Response] = daemon.loop.create_future()
    daemon.service.on_request(CLIENT, "client", Request(1, "runs", params, 5.0), answer.set_result)
    assert not (await answer).ok


async def test_a_daemon_is_not_well_for_its_own_sake_alone(tmp_path: Path) -> None:
    """Who restarts or pages for it must not be led by a run that fails, or by a stranger who knocks."""
    daemon = Daemon(tmp_path)
    standing = StandingProblems(daemon.service)
    daemon.recorder.report(Report("transport.cut", {"peer": "b", "why": "x"}, "error"))
    daemon.recorder.note_shortage(RunId(RUN), "no room")
    assert standing.of_the_daemon() == []
    daemon.recorder.problems.note(DISK, "the disk is full", "free some")
    assert standing.of_the_daemon() == ["the disk is full: free some"]
    daemon.view.membership.is_unhealthy = True
    assert len(standing.of_the_daemon()) == 2


async def test_a_node_may_not_do_what_clients_may(tmp_path: Path) -> None:
    """A key that only serves a member must not be able to cancel runs."""
    daemon = Daemon(tmp_path, "ab" * 16)
    assert not (await daemon.ask("cancel", role="node", run="ab" * 16)).ok
    assert (await daemon.ask("share.end", role="node", run="ab" * 16)).ok


async def test_a_share_that_takes_too_long_is_told_as_missing(tmp_path: Path) -> None:
    """Such as the hash of a large model that this host reads for the first time: a client that gets no answer in time
    takes the daemon for gone."""
    daemon = Daemon(tmp_path, "ab" * 16)

    async def never(params: Mapping[str, Any]) -> dict[str, Any]:
        return await asyncio.Future[dict[str, Any]]()

    daemon.service.serve({}, {"share.slow": never})
    shares, missing = await daemon.service.gather("share.slow", {}, 0.1)
    assert (shares, missing) == ({}, [ME[:8]])


def advanced(step: int) -> Advanced:
    return Advanced(RunId(RUN), Head(VersionId(f"v{step}"), step, 0), is_copied=False, metrics={"x": 1.0})


async def test_a_run_that_begins_again_after_a_kill_says_how_many_steps_are_lost(tmp_path: Path) -> None:
    """`ps`, `watch` and the log tell it, until the run is as far again: a silent restart looks like progress."""
    before = Daemon(tmp_path, RUN)
    for step in range(4):
        before.recorder.advance(advanced(step))
    before.journal.close()
    daemon = Daemon(tmp_path, RUN)  # the daemon's next life, with the same disk
    row = msgpack.unpackb((await daemon.ask("runs")).value)["runs"][0]
    assert (row["reached"], row["saved"], row["held"]) == (3, None, None)
    daemon.recorder.advance(advanced(0))
    (problem,) = msgpack.unpackb((await daemon.ask("run", run=RUN)).value)["problems"]
    assert problem["key"] == f"run.set_back/{RUN}"
    assert problem["what"] == "set back to step 0: 3 steps are lost, this daemon had reached 3"
    for step in range(1, 4):
        daemon.recorder.advance(advanced(step))
    assert msgpack.unpackb((await daemon.ask("run", run=RUN)).value)["problems"] == []


async def test_a_run_that_goes_on_where_it_was_says_nothing(tmp_path: Path) -> None:
    """A warning at each restart would be no warning."""
    for first, end in ((0, 3), (2, 5)):  # the second life begins with the version that the first one ended with
        daemon = Daemon(tmp_path, RUN)
        for step in range(first, end):
            daemon.recorder.advance(advanced(step))
        assert daemon.recorder.problems.rows() == []


async def test_tasks_that_do_not_fit_into_one_answer_are_asked_for_in_several(tmp_path: Path) -> None:
    """What a run leaves at home is all of it, not the newest half."""
    daemon = Daemon(tmp_path, RUN)
    timeline = daemon.recorder.timeline
    for step in range(2_000):
        for partition in range(10):
            task = TaskKey(step, "roll", Partition(partition))
            timeline.start(Start(1, RunId(RUN), task, ChainWork(step, ("roll",), partition, ())), float(step))
            timeline.fail(1, Failed("user", "no" * 100), step + 0.5)
    newest = msgpack.unpackb((await daemon.ask("tasks", run=RUN)).value)
    assert newest["cut"]
    first = newest["tasks"][0]["step"] + 1
    older = msgpack.unpackb((await daemon.ask("tasks", run=RUN, before_step=first)).value)["tasks"]
    found = {row["id"] for row in (*older, *newest["tasks"])}
    assert len(found) == 20_000
    daemon.journal.close()
