"""One slot: the devices and the child that it owns, the calls that run there, and whether they still live.

The child that the daemon speaks to is the first of its process group: what it starts itself, such as ranks of a model
that is cut over several devices, ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dflow_protocols.events import Report
from dflow_protocols.names import TaskKey
from dflow_protocols.work import Done

from .calls import Call, GiveUp, GrantedSegment, Input, Ready, ToChild, Trim
from .open_call import OpenCall
from .process import EngineChild
from .settings import SupervisorSettings

START_LIMIT_S = 180.0  # importing a framework from a cold disk on a busy machine; then the start counts as failed
GIVE_UP_LIMIT_S = 10.0  # what a child that was told to give up may take before it is killed
QUIT_LIMIT_S = 2.0
IN_HAND_S = 0.01  # of short partitions that a child has at most beside what it is at: these nobody steals
MOST_IN_HAND = 8
NEXT = 1  # of longer ones, that the child need not wait for its daemon; until it comes to it, it may be taken back
DISTRUSTED = "its call failed"
STUCK_SHARE = 0.2  # of the time that a call may make no progress, after which it is told


@dataclass(slots=True, eq=False)
class Slot:
    """State and its verbs. Who starts children, and what their messages mean, is the supervisor's."""

    index: int
    settings: SupervisorSettings
    engine: str = ""
    is_host: bool = False  # without a device, for work on shards alone
    child: EngineChild | None = None
    verdict: str = ""  # why the child was killed
    is_dismissed: bool = False  # whether it was asked to exit, or killed after a failure
    lost: str = ""  # what is wrong with its device, so that nothing but saves can run here
    calls: dict[int, OpenCall] = field(default_factory=dict)
    _ready: Ready | None = None
    _heard_s: float = 0.0  # when the child last said anything
    _dismissed_s: float = 0.0
    _is_used: bool = False  # whether the child has had a call
    _like: TaskKey | None = None  # the call that was done last, if it was for a partition
    _are_short: bool = False  # whether it took so little that those like it are begun several together
    _in_hand: int = 1  # how many like that the child may have, one of which it is at
    _stuck: set[int] = field(default_factory=set)  # calls of which it was told that they make no progress

    # Calls ----------------------------------------------------------------------------------------------------------

    def takes(self, call: OpenCall) -> bool:
        """Whether the call may begin here now, perhaps in another child."""
        if self.is_dismissed or (self.lost and not call.is_save):
            return False
        if not self.calls:
            return True
        if call.asked.fresh or call.brief.engine != self.engine:
            return False
        if len(self.calls) >= max(call.at_once, self._in_hand):
            return False
        first = next(iter(self.calls.values()))  # all others came to it as this one may
        are_like = self._like is not None and call.is_like(self._like) and first.is_like(self._like)
        return call.asked.run == first.asked.run and (are_like or len(self.calls) < self._at_once(call))

    def _at_once(self, call: OpenCall) -> int:
        return min(each.at_once for each in (call, *self.calls.values()))

    def preference(self, engine: str) -> tuple[bool, int, bool, int]:
        """The least one is asked first: a child that already is of the right kind, then one that has least to do."""
        return self.engine != engine, len(self.calls), self.child is not None, self.index

    def is_unfit(self, call: OpenCall) -> bool:
        """Whether its child must go before the call can begin."""
        return self.child is not None and (self.engine != call.brief.engine or (call.asked.fresh and self._is_used))

    def begin(self, call: OpenCall, inputs: tuple[Input, ...], room: tuple[GrantedSegment, ...], now: float) -> None:
        """Send a call to the child. `room`: for its outputs, as far as that could be known."""
        assert self.child is not None
        call.room_answered(now)
        if self.calls and call.at_once == 1 and not self._are_short:
            call.stand_by()
        self.calls[call.id] = call
        brief = call.brief
        self.child.send(Call(call.id, brief.spec, brief.base, brief.code, brief.folder, call.asked.work, inputs, room))
        self._is_used = True
        if call.end is not None:
            self.child.send(Trim(call.id, call.end))

    def give_up(self, call: OpenCall, now: float) -> None:
        if not call.is_given_up:
            call.give_up(now)
            self._send(GiveUp(call.id))

    def trim(self, call: OpenCall, end: int) -> None:
        self._send(Trim(call.id, end))

    def end(self, call: OpenCall, done: Done | None = None) -> None:
        """The call is over. `done`: what it gave, if it gave anything."""
        self.calls.pop(call.id, None)
        if call.waits:
            return  # it was taken back: that says nothing of others
        if done is None or not call.is_chain:
            self._forget_likes()
            return
        seconds = sum(made.seconds for made in done.made)
        short = int(IN_HAND_S / max(seconds, IN_HAND_S / MOST_IN_HAND))
        # Where there are several slots, whichever is free first takes what waits.
        self._like, self._are_short = call.asked.task, short > 0
        self._in_hand = 1 + (short or (NEXT if self.settings.slots == 1 else 0))

    def follow(self, now: float) -> OpenCall | None:
        """What the child comes to of what it has in hand, as the call before has ended."""
        following = next(iter(self.calls.values()), None)
        if following is None or not following.waits or following.is_given_up:
            return None
        following.go_on(now)
        return following

    def _forget_likes(self) -> None:
        self._like, self._are_short, self._in_hand = None, False, 1

    def _send(self, message: ToChild) -> None:
        if self.child is not None:
            self.child.send(message)

    # The child ------------------------------------------------------------------------------------------------------

    def house(self, child: EngineChild, engine: str, now: float) -> None:
        """A child was started for it."""
        self.child, self.engine, self.verdict = child, engine, ""
        self._ready, self._is_used, self._heard_s = None, False, now
        self._forget_likes()

    def heard(self, now: float) -> None:
        self._heard_s = now

    def is_ready(self, message: Ready, now: float) -> None:
        """The child is up; what its start took is no cost of its calls."""
        self._ready = message
        for call in self.calls.values():
            call.moved(now)

    def dismiss(self, now: float) -> None:
        """Ask the child to exit."""
        self.is_dismissed, self._dismissed_s = True, now
        if self.child is not None:
            self.child.quit()

    def distrust(self, now: float) -> None:
        """End the child after a failure: what that left behind is not worth trusting."""
        self.is_dismissed, self._dismissed_s = True, now
        self.kill(DISTRUSTED)

    @property
    def is_trusted(self) -> bool:
        """Whether what the child says counts: not of what it went on with after a failure."""
        return self.verdict != DISTRUSTED

    def drain(self, why: str, now: float) -> list[OpenCall]:
        """Its device is of no use: end the child, and take nothing more. Returns the calls that are to be answered now;
        what they have in the store they keep until the child is gone, which may have to wait for the driver."""
        self.lost = why
        left = [call for call in self.calls.values() if not call.is_given_up]
        for call in left:
            self.give_up(call, now)
        if self.child is not None:
            self.distrust(now)
        return left

    def restore(self, now: float) -> None:
        """Its device answers again; a child that was started without it goes."""
        self.lost = ""
        if self.child is not None and not self.is_dismissed:
            self.dismiss(now)

    def kill(self, verdict: str) -> None:
        self.verdict = verdict
        if self.child is not None:
            self.child.kill()

    def vacate(self) -> list[OpenCall]:
        """The child is gone; returns the calls that it leaves."""
        left = list(self.calls.values())
        self.calls.clear()
        self.child, self.is_dismissed = None, False
        return left

    def close(self) -> list[OpenCall]:
        """Kill the child, which says nothing any more; returns the calls that it leaves."""
        if self.child is not None:
            self.child.close()
        return self.vacate()

    # The watch ------------------------------------------------------------------------------------------------------

    def excuse(self, seconds: float) -> None:
        """While this process was stopped no child could be heard."""
        self._heard_s += seconds
        for call in self.calls.values():
            call.excuse(seconds)

    def judge(self, now: float) -> None:
        """Kill the child if it must be, and note why."""
        verdict = self._verdict(now) if self.child is not None and not self.verdict else ""
        if verdict:
            self.kill(verdict)

    def _verdict(self, now: float) -> str:
        assert self.child is not None
        silent_s, doing = now - self._heard_s, self.child.doing
        if self._ready is None:
            return f"not ready after {silent_s:.0f} s" if silent_s > START_LIMIT_S else ""
        if self.is_dismissed:
            return "it did not exit when asked" if now - self._dismissed_s > QUIT_LIMIT_S else ""
        if silent_s > self.settings.silence_s:
            return f"silent for {silent_s:.0f} s"
        for call in self.calls.values():
            waits = bool(doing.calls) and call.id not in doing.calls  # for another call that has the baton
            if call.given_up_s is not None and now - call.given_up_s > GIVE_UP_LIMIT_S and not waits:
                return "it did not give its call up"
            if call.still_s(now) > self.settings.stall_s:
                # Like each time, as errors are compared.
                return f"no progress for {self.settings.stall_s:g} s (engine.stall_s)"
        return ""

    def stuck_reports(self, now: float) -> Iterator[Report]:
        """Tells of calls that make no progress long before they are given up, and when they move again."""
        limit_s = self.settings.stall_s * STUCK_SHARE
        still = {number for number, call in self.calls.items() if call.still_s(now) > limit_s}
        if self.child is not None and (its_own := still.intersection(self.child.doing.calls)):
            still = its_own  # the others wait for these
        if self.child is not None and self._ready is not None:
            for number in sorted(still - self._stuck):
                self._stuck.add(number)
                yield self._stuck_report(self.calls[number], self.child, now)
        if self._stuck and not self._stuck & still:
            self._stuck.clear()
            yield Report("engine.unstuck", {"slot": self.index})

    def _stuck_report(self, call: OpenCall, child: EngineChild, now: float) -> Report:
        doing = child.doing
        fields = {
            "run": call.asked.run,
            "slot": self.index,
            "task": str(call.asked.task),
            "doing": doing.what or "it worked",
            "stage": doing.stage or call.asked.task.stage,
            "seconds": round(call.still_s(now)),
            "limit_s": self.settings.stall_s,
        }
        return Report("engine.stuck", fields, "warning")

    @property
    def waiting(self) -> int:
        """Calls in the child's hand that it has not come to."""
        return sum(call.waits for call in self.calls.values())

    def row(self) -> dict[str, Any]:
        """What it runs, in which process, with which numerics."""
        return {
            "slot": self.index,
            "kind": "host" if self.is_host else "device",
            "lost": self.lost,
            "engine": self.engine,
            "pid": self.child.pid if self.child is not None else 0,
            "numerics": self._ready.numerics if self._ready is not None else "",
            "task": ", ".join(str(call.asked.task) for call in self.calls.values() if not call.waits),
            "stage": self.child.doing.stage if self.child is not None else "",
            "doing": self.child.doing.what if self.child is not None else "",
        }
