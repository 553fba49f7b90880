"""What a client may rely on when it asks for a task's life: names that can be wrong, and who told nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest

from dflow_protocols.events import Finished, Start, Tick
from dflow_protocols.names import NodeId, Partition, RunId, TaskKey
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.pipeline.schedule import Schedule
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.story import Story
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.work import ChainWork, Done
from dflowd.process.host import Host
from dflowd.service.dispatch import Service
from dflowd.service.request import Refusal
from dflowd.service.stories import StoryAnswers, alike, find_task

ME, DEAD, CLIENT = NodeId("aa" * 16), NodeId("bb" * 16), NodeId("cc" * 16)
RUN, OTHER = RunId("ab" * 16), RunId("cd" * 16)
UNIT = TaskKey(0, "roll", Partition(3))
BEGAN_S, CLOCK_S, WALL_S = 1000.0, 50.0, 1050.0  # the process began at second 0 of its clock


@dataclass
class Member:
    state: str
    meta: None = None


@dataclass
class Membership:
    members: dict[NodeId, Member] = field(default_factory=lambda: {ME: Member("alive"), DEAD: Member("dead")})

    def alive(self) -> tuple[NodeId, ...]:
        return (ME,)


@dataclass
class Toy:
    state: str = "active"

    @property
    def schedule(self) -> Schedule:
        return two_steps().schedule

    def summary(self) -> dict[str, Any]:
        return {"name": "toy", "state": self.state, "step": 0, "spec": two_steps().canonical()}


@dataclass
class View:
    runs: dict[RunId, Toy]
    membership: Membership = field(default_factory=Membership)

    def withdrawn(self, member: NodeId) -> list[dict[str, str]]:
        return []

    def unfinished(self, now: float) -> dict[str, int]:
        return {}

    def silent_s(self, now: float, member: NodeId) -> float | None:
        return None


class Clocks(Host):
    def clock(self) -> float:
        return CLOCK_S


class Asked:
    """A daemon with a story, and a client in front of it."""

    def __init__(self, runs: dict[RunId, str], own_room: int = 100) -> None:
        self.loop = asyncio.get_running_loop()
        self.story = Story(ME, own_room)
        view = View({run: Toy(state) for run, state in runs.items()})
        host = Clocks(self.loop, print, print, lambda: WALL_S)
        recorder: Any = None  # is asked for the newest run only
        self.service = Service(host, ME, view, recorder, lambda *_: False, self._written, lambda key: "anna")
        StoryAnswers(self.service, self.story, BEGAN_S)

    async def _written(self) -> None:
        return None

    async def ask(self, **params: Any) -> dict[str, Any]:
        answer: asyncio.Future[Response] = self.loop.create_future()
        self.service.on_request(CLIENT, "client", Request(7, "story", msgpack.packb(params), 5.0), answer.set_result)
        value: dict[str, Any] = msgpack.unpackb((await asyncio.wait_for(answer, 30)).value)
        return value

    def live(self) -> None:
        """A call of the unit, from second 10 to second 12 of the node's clock."""
        start = Start(1, RUN, UNIT, ChainWork(0, ("roll", "score", "adv"), 3, ()))
        self.story.take(4, 10.0, [Tick()], [start])
        self.story.take(9, 12.0, [Finished(1, Done(()))], [])


async def test_a_task_is_told_by_any_of_its_chains_stages_in_peoples_time() -> None:
    """One call does all stages of a partition; whoever asks for the reward's task means that call."""
    asked = Asked({RUN: "active"})
    asked.live()
    for task in ("0/roll/p3", "0/adv/p3"):
        answer = await asked.ask(task=task)
        assert answer["run"] == RUN
        assert [(row["what"], row["cause"], row["began"], row["time_s"]) for row in answer["entries"]] == [
            ("started", 4, None, 1010.0),
            ("finished", 9, 4, 1012.0),
        ]
    assert (await asked.ask(task="0/roll/p2"))["entries"] == []
    assert [row["cause"] for row in (await asked.ask(run=RUN[:6], limit=1))["entries"]] == [9]
    assert (await asked.ask(run=RUN, step=1))["entries"] == []


async def test_who_is_gone_and_since_when_each_knows_everything_is_told() -> None:
    """A story with a hole must not look whole."""
    asked = Asked({RUN: "active"})
    answer = await asked.ask(run=RUN)
    assert answer["gone"] == {DEAD[:8]: "dead"}
    assert answer["since"] == {ME[:8]: BEGAN_S}
    full = Asked({RUN: "active"}, own_room=1)
    full.live()
    assert (await full.ask(run=RUN))["since"] == {ME[:8]: 1010.0}


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("roll", "`roll` is no task", "a task is STEP/STAGE/PART"),
        ("x/roll/p1", "`x/roll/p1` is no task", "a task is STEP/STAGE/PART"),
        ("9/roll/p1", "the run has 2 steps", "steps are 0 to 2"),
        ("0/rol/p1", "step 0 has no stage `rol`", "did you mean `0/roll/p1`?"),
        ("0/zzzz/p1", "step 0 has no stage `zzzz`", "its stages: roll, score, adv"),
        ("0/roll/p5", "`roll` has no part `p5` in step 0", "its parts: p0 to p4"),
        ("0/learn/b0-9", "`learn` has no part `b0-9`", "b0-1 to b0-4"),
        ("0/roll/" + "9" * 500, "`roll` has no part `9999", "its parts: p0 to p4"),
    ],
)
def test_a_task_that_cannot_be_is_answered_by_what_could(text: str, what: str, hint: str) -> None:
    """A key is typed by hand: the answer names the nearest."""
    with pytest.raises(Refusal) as refused:
        find_task(text, two_steps())
    assert what in refused.value.value["what"]
    assert hint in refused.value.value["hint"]
    assert len(refused.value.value["what"]) < 200


@pytest.mark.parametrize(
    "text", ["0/learn/b2-3", "0/learn/b0-4", "0/learn/s0-9", "0/learn/apply", "0/init/init", "2/checkpoint/save"]
)
def test_every_kind_of_task_can_be_asked_for(text: str) -> None:
    """Also those that each node does for itself."""
    task, _ = find_task(text, two_steps())
    assert str(task) == text
    assert alike(task, plan(two_steps(), task.step)) == [task]


def test_tasks_of_a_steps_later_updates_can_be_asked_for() -> None:
    """They are numbered by versions, of which such a run makes more than it has steps."""
    spec = two_steps().to_dict()
    next(stage for stage in spec["stages"] if stage["id"] == "learn")["config"]["epochs"] = 2
    pipeline = Pipeline.from_dict(spec)
    task, _ = find_task(f"{pipeline.schedule.versions - 1}/learn/apply", pipeline)
    assert pipeline.schedule.steps <= task.step


async def test_a_task_named_alone_is_of_the_only_active_run() -> None:
    """Most of the time there is one; where there are several, guessing would tell another task's life."""
    assert (await Asked({RUN: "active", OTHER: "done"}).ask(task="0/roll/p3"))["run"] == RUN
    both = await Asked({RUN: "active", OTHER: "active"}).ask(task="0/roll/p3")
    assert both["what"] == "`0/roll/p3` may be of 2 runs"
    assert both["hint"] == f"name the run before it: {RUN[:8]}/0/roll/p3, {OTHER[:8]}/0/roll/p3"
    assert (await Asked({}).ask(task="0/roll/p3"))["what"] == "no run is known here"
