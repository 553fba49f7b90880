"""Leaving: a node that is asked to stop gives back what it runs, and hands over what only it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import Action, Send, Stop
from ..names import ShardRef
from ..rendezvous import ranked
from ..wire.steps import Keep
from ..work import SaveWork

if TYPE_CHECKING:
    from ..runs.run import Run, Surroundings


class Leaving:
    """One run at a node that leaves. Until `begin`, nothing."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.is_begun = False  # from then on the run starts nothing more here
        self.is_saving = False
        self._asked = 0

    def begin(self, now: float, around: Surroundings) -> list[Action]:
        """Give up what runs here, and ask a living member to keep what nobody else holds."""
        run = self.run
        stopped = [call for call, running in run.calls.items() if not isinstance(running.work, SaveWork)]
        out: list[Action] = [Stop(call) for call in stopped]
        for call in stopped:
            del run.calls[call]
        self.is_begun = True
        position = run.position
        if position is not None and run.is_active:
            run.postbox.put_claims(run.desk(now, around, position), out, run.stealing.give_back())
            self.hand_over(around, out)
        return out

    def look(self, now: float, around: Surroundings, out: list[Action]) -> None:
        """Save the version, which may be about to have no holder at all: others may have been asked to leave too."""
        self.is_saving = self.run.checkpoints.part(now, around, out)

    def hand_over(self, around: Surroundings, out: list[Action]) -> None:
        """Ask one living member after another to keep what nobody else holds; called until none is left."""
        others = [node for node in ranked(self.run.id, tuple(sorted(around.living))) if node != self.run.me]
        sole = self._held_alone(around)
        if sole and others:
            out.append(Send(others[self._asked % len(others)], Keep(self.run.id, sole)))
            self._asked += 1

    def is_done(self, around: Surroundings) -> bool:
        """Whether nothing of this run would go with this node."""
        if not self.run.is_active:
            return self.run.ending.is_cleared  # a run that failed saves its newest version first
        return not self.is_saving and (len(around.living) == 1 or not self._held_alone(around))

    def _held_alone(self, around: Surroundings) -> tuple[ShardRef, ...]:
        """Shards of the version and of the open step that no other living node is known to hold."""
        run = self.run
        own = run.versions.own
        if own is None:
            return ()
        refs = [ref for record in run.step(own.step).all_records() for ref in record.shards]
        if not run.versions.holders(own.id, around.living):
            refs += [ref for _, ref in own.state]
        return tuple(
            ref for ref in dict.fromkeys(refs) if run.holdings.live_holders(ref.id, around.living) == (run.me,)
        )
