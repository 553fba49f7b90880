"""Ability: which members can run a stage. What it requires they must offer, and they must not have withdrawn from it.

A node that fails different tasks of a stage in a row is taken for broken, not the tasks: it withdraws from the stage,
says so on every frame, and others take its share at once. After a back-off it tries again; one more failure, and it
withdraws for twice as long. One without a slot that works stands aside: it withdraws from all stages until it has one
again. If everybody who offers what is needed has withdrawn, nobody has: then it is the tasks.

One that has not the run's files withdraws from all stages, one that runs no code from the wire from those that have
some. These are barred there, whatever others do: nothing makes up for what a work would open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..events import Report
from ..names import NodeId, Once, RunId, TaskKey
from ..pipeline.spec import Pipeline
from ..wire.gossip import Meta
from ..wire.steps import Withdrawal

WITHDRAW_AFTER = 3  # different tasks of one stage that fail in a row
BACK_OFF = 4.0  # suspicion times of the first withdrawal; each further one takes twice as long
MAX_BACK_OFF = 64.0
MAX_DOUBLINGS = 10  # counted; a host may be broken for months
REASON_CHARACTERS = 200  # rides on every frame while it lasts

REFUSES_CODE = "it runs no code that came by wire"
BARS = ("files", "code")  # causes of a withdrawal that hold though everybody has withdrawn

Offers = Mapping[NodeId, frozenset[str]]


def has_gpus(meta: Meta) -> bool:
    return not meta.device.startswith("cpu")


def offers_of(meta: Meta) -> frozenset[str]:
    """The words that a stage may require and this member meets: its roles, and `cpu` or `gpu`."""
    return frozenset({*meta.roles, "gpu" if has_gpus(meta) else "cpu"})


@dataclass(slots=True)
class Trouble:
    """A stage that fails here: the tasks in a row, and since when and how often this node has withdrawn."""

    failed: list[TaskKey] = field(default_factory=list)
    reason: str = ""
    until: float = 0.0
    times: int = 0


class Ability:
    """One run's at one node."""

    def __init__(self, run: RunId, pipeline: Pipeline, has_files: bool = False) -> None:
        """`has_files`: works of the run open files, and it is not known yet whether they lie here."""
        self._run = run
        self._needs = {stage.id: needs for stage in pipeline.stages if (needs := pipeline.needs(stage.id))}
        self._stages = [stage.id for stage in pipeline.stages]
        self._troubles: dict[str, Trouble] = {}
        self._unable = ""  # why this node can do nothing at all, if so
        self.are_files_known = not has_files  # whether the host has said how they stand
        self.missing = ""  # what of the run's files is not here, in words
        self._refused: frozenset[str] = frozenset()  # stages whose code this node does not run
        self._told: dict[NodeId, tuple[Withdrawal, ...]] = {}  # what others have withdrawn from

    # Everybody's ----------------------------------------------------------------------------------------------------

    def learn(self, node: NodeId, withdrawn: tuple[Withdrawal, ...]) -> bool:
        """A member's frame says what it leaves to others. True if that is news."""
        before = self._told.get(node, ())
        if withdrawn:
            self._told[node] = withdrawn
        else:
            self._told.pop(node, None)
        return {(each.stage, each.cause) for each in withdrawn} != {(each.stage, each.cause) for each in before}

    def forget(self, node: NodeId) -> None:
        self._told.pop(node, None)

    def withdrawn_at(self, node: NodeId, me: NodeId) -> dict[str, str]:
        """By stage, why a member leaves it to others now."""
        return {each.stage: each.why for each in self._withdrawn_at(node, me)}

    def fit(self, stages: Collection[str], living: frozenset[NodeId], offers: Offers) -> frozenset[NodeId]:
        """Living members that offer what these stages require."""
        needs = self._needed(stages)
        return frozenset(node for node in living if needs <= offers.get(node, frozenset())) if needs else living

    def able(self, stages: Collection[str], me: NodeId, living: frozenset[NodeId], offers: Offers) -> frozenset[NodeId]:
        """Those of the fit that have not withdrawn; if everybody has, those that are not barred; all of them if
        everybody is."""
        fit = self.fit(stages, living, offers)
        if self._has_nobody_withdrawn:
            return fit
        gone = self._gone(stages, me, fit)
        return fit.difference(gone) or fit - self._barred(gone) or fit

    @property
    def is_everybodys(self) -> bool:
        """Whether any living member is able to run any stage."""
        return not self._needs and self._has_nobody_withdrawn

    def lacking(self, stages: Collection[str], living: frozenset[NodeId], offers: Offers) -> dict[str, str]:
        """What these stages require, and which of them does, if no living member offers all of it."""
        if self.fit(stages, living, offers):
            return {}
        return {word: stage for stage in stages for word in sorted(self._needs.get(stage, ()))}

    def barred(
        self, stages: Collection[str], me: NodeId, living: frozenset[NodeId], offers: Offers
    ) -> Withdrawal | None:
        """What keeps these stages from all living members that offer what they require, if something does: files, which
        may still come, before code; of this node before others."""
        if self._has_nobody_withdrawn:
            return None
        fit = self.fit(stages, living, offers)
        gone = self._gone(stages, me, fit)
        if not fit or self._barred(gone) != fit:
            return None
        bars = [each for node in sorted(fit, key=lambda node: (node != me, node)) for each in gone[node]]
        return min((each for each in bars if each.cause in BARS), key=lambda each: BARS.index(each.cause))

    def without_files(self, me: NodeId, nodes: Collection[NodeId]) -> frozenset[NodeId]:
        """Those of `nodes` that have not the run's files."""
        return self._withdrawn_for(("files",), me, nodes)

    def without_means(self, me: NodeId, nodes: Collection[NodeId]) -> frozenset[NodeId]:
        """Those of `nodes` that can try nothing of the run as long as they lack its files, or a slot that works."""
        return self._withdrawn_for(("files", "device"), me, nodes)

    def _withdrawn_for(self, causes: Collection[str], me: NodeId, nodes: Collection[NodeId]) -> frozenset[NodeId]:
        return frozenset(n for n in nodes if any(each.cause in causes for each in self._withdrawn_at(n, me)))

    @property
    def _has_nobody_withdrawn(self) -> bool:
        return not (self._told or self._troubles or self._unable or self.missing or self._refused)

    def _withdrawn_at(self, node: NodeId, me: NodeId) -> tuple[Withdrawal, ...]:
        return self.withdrawn if node == me else self._told.get(node, ())

    def _gone(self, stages: Collection[str], me: NodeId, nodes: Collection[NodeId]) -> dict[NodeId, list[Withdrawal]]:
        """Which of `nodes` have withdrawn from any of these stages, and how."""
        found = {node: [each for each in self._withdrawn_at(node, me) if each.stage in stages] for node in nodes}
        return {node: withdrawn for node, withdrawn in found.items() if withdrawn}

    @staticmethod
    def _barred(gone: Mapping[NodeId, Iterable[Withdrawal]]) -> frozenset[NodeId]:
        return frozenset(node for node, withdrawn in gone.items() if any(each.cause in BARS for each in withdrawn))

    def _needed(self, stages: Collection[str]) -> frozenset[str]:
        if not self._needs:
            return frozenset()
        return frozenset(word for stage in stages for word in self._needs.get(stage, ()))

    # This node's ----------------------------------------------------------------------------------------------------

    @property
    def withdrawn(self) -> tuple[Withdrawal, ...]:
        """Stages that this node leaves to others now, each once."""
        if self.missing:
            return tuple(Withdrawal(stage, "files", self.missing) for stage in sorted(self._stages))
        found = {
            stage: Withdrawal(stage, "failed", each.reason) for stage, each in self._troubles.items() if each.until
        }
        if self._unable:
            found |= {stage: Withdrawal(stage, "device", self._unable) for stage in self._stages}
        found |= {stage: Withdrawal(stage, "code", REFUSES_CODE) for stage in self._refused}
        return tuple(found[stage] for stage in sorted(found))

    @property
    def may_run_all(self) -> bool:
        """Whether any work of the run may start here."""
        return self.are_files_known and not self.missing and not self._refused

    def may_run(self, stages: Collection[str]) -> bool:
        """Whether a work that opens files may start here: they lie here, and the code of its stages is run here."""
        return self.are_files_known and not self.missing and self._refused.isdisjoint(stages)

    def found(self, lacking: str, refused: Collection[str]) -> bool:
        """How the run's files stand on this host; see `events.FilesFound`. True if something else may start now."""
        before = self.are_files_known, bool(self.missing), self._refused
        self.are_files_known, self.missing = True, lacking[:REASON_CHARACTERS]
        self._refused = frozenset(refused) & frozenset(self._stages)
        return before != (True, bool(self.missing), self._refused)

    def stand_aside(self, why: str) -> bool:
        """`why`: this node has no slot for any task, and leaves all stages to others until that is empty again. True if
        that is news."""
        before, self._unable = self._unable, why[:REASON_CHARACTERS]
        return bool(before) != bool(why)

    def failed(self, now: float, suspicion_s: float, unit: TaskKey, error: str, is_host: bool) -> list[Report]:
        """A task failed here; `is_host`: for a reason that holds for all of this run's tasks on this host."""
        if is_host:
            gone = {each.stage for each in self.withdrawn}
            return [self._withdraw(now, suspicion_s, stage, error) for stage in self._stages if stage not in gone]
        if isinstance(unit.part, Once):
            return []  # what every node does for itself: there is nobody to leave it to
        trouble = self._troubles.setdefault(unit.stage, Trouble())
        if unit not in trouble.failed:
            trouble.failed.append(unit)
        if len(trouble.failed) < WITHDRAW_AFTER or trouble.until:
            return []
        return [self._withdraw(now, suspicion_s, unit.stage, error)]

    def succeeded(self, unit: TaskKey) -> list[Report]:
        """A task was done here: whatever was wrong with tasks of its kind is over. A slice says nothing of blocks."""
        trouble = self._troubles.get(unit.stage)
        if trouble is None or any(type(task.part) is not type(unit.part) for task in trouble.failed):
            return []
        del self._troubles[unit.stage]
        return [self._back(unit.stage)] if trouble.until else []

    def try_again(self, now: float) -> list[Report]:
        """End back-offs that are over; the next failure withdraws again at once."""
        reports = []
        for stage, trouble in self._troubles.items():
            if trouble.until and trouble.until <= now:
                trouble.until, trouble.failed = 0.0, trouble.failed[-(WITHDRAW_AFTER - 1) :]
                reports.append(self._back(stage))
        return reports

    def _withdraw(self, now: float, suspicion_s: float, stage: str, error: str) -> Report:
        trouble = self._troubles.setdefault(stage, Trouble())
        seconds = min(BACK_OFF * 2.0 ** min(trouble.times, MAX_DOUBLINGS), MAX_BACK_OFF) * suspicion_s
        trouble.until, trouble.times, trouble.reason = now + seconds, trouble.times + 1, error[:REASON_CHARACTERS]
        fields = {"run": self._run, "stage": stage, "seconds": round(seconds, 1), "error": trouble.reason}
        return Report("operator.withdrawn", fields, "warning")

    def _back(self, stage: str) -> Report:
        return Report("operator.resumed", {"run": self._run, "stage": stage})
