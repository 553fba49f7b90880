"""A run costs what it must: bytes as the tree needs them, and work done again as far as the dead held it."""

from __future__ import annotations

from collections import Counter

from ....events import Advanced, Finished, Start
from ....names import NodeId, RunId, TaskKey, VersionId
from ....work import BlockWork, ChainWork, Done, SliceWork
from ...model import provenance
from ...model.host import Host
from ...model.provenance import BlockSum, PartitionOutput, SliceSum
from ...world import World
from ..checker import Checker, Seen, Steady, done_by, state_of

SPARE = 1.0  # gradients of a step more: a leaf that was stolen when its block was fetched already
MOST_COPIES = 1.5  # of what a step sampled, and one for each leaf that a partition has
AGAIN_SHARE = 0.1  # of all units, done twice without a death: thefts that cross
AGAIN = 3  # units more for each death: they were begun when it was not known yet
DEATHS = frozenset({"crash", "power_cut", "leave", "join"})


class Thrift(Checker):
    """`bytes_derived`, `redone_lost`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._made: dict[tuple[RunId, int], set[VersionId]] = {}  # versions, by step
        self._starts: dict[tuple[NodeId, int, int], Start] = {}  # by machine, life, call
        self._done: Counter[tuple[RunId, TaskKey]] = Counter()
        self._lost = 0  # units that the dead held
        self._deaths = 0

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced, Start: self._started}

    @property
    def hears(self) -> Seen:
        return {Finished: self._finished}

    def _advanced(self, host: Host, action: Advanced) -> None:
        self._made.setdefault((action.run, action.head.step), set()).add(action.head.version)

    def _started(self, host: Host, start: Start) -> None:
        if isinstance(start.work, ChainWork | BlockWork | SliceWork):
            self._starts[host.place, host.lives, start.call] = start

    def _finished(self, host: Host, event: Finished) -> None:
        start = self._starts.pop((host.place, host.lives, event.call), None)
        if start is not None:
            first = self.world.engines[start.run].done_first
            self._done.update((start.run, first(unit)) for unit in _units(start, event.done))

    def dies(self, host: Host) -> None:
        self._deaths += 1
        self._lost += len(host.calls)
        for run in self.world.runs:
            self._lost += self._held_alone(host, run)

    def _held_alone(self, host: Host, run: RunId) -> int:
        """How many units are lost with a node: those since the best version that others have, where it had a better
        one, else those of which only it has what came out. All, where nobody else lives: who knows which disks are
        whole."""
        state, others = state_of(host, run), [each for each in self.world.live() if each is not host]
        if state is None or not state.is_active:
            return 0
        heads = [own.step for each in others if (known := state_of(each, run)) and (own := known.versions.own)]
        base, own = max(heads, default=0), state.versions.own
        if not heads or (own is not None and own.step > base):
            return sum(times > 0 for (of, unit), times in self._done.items() if of == run and unit.step >= base)
        records = [record for step in state.steps.values() if step.number >= base for record in step.all_records()]
        return sum(
            any(host.store.has(ref) and not any(each.store.has(ref) for each in others) for ref in record.shards)
            for record in records
        )

    def end(self) -> None:
        if len(self.world.runs) != 1 or any(len(versions) > 1 for versions in self._made.values()):
            return  # wild engines: what began on another version counts for nothing
        if not self.world.struck and self.is_quiet() and not self.world.ledger.alike:
            self._check_bytes()
        if self.world.struck.keys() <= DEATHS and self._deaths:
            self._check_again()

    def _check_bytes(self) -> None:
        """Of each step a gradient for each leaf, at most, and one for each node but one; and of what it sampled a
        second copy, what leaves have of others' partitions, and what goes along with leaves that are stolen."""
        gradients, sampled = Counter[int](), Counter[int]()
        for host in self.world.live():
            assert host.process is not None
            for shard, count in host.process.bulk.fetched_bytes.items():
                made = self.world.ledger[shard]
                if isinstance(made, BlockSum | SliceSum):
                    gradients[made.step] += count
                elif isinstance(made, PartitionOutput):
                    sampled[made.step] += count
        self._check_gradients(gradients)
        self._check_sampled(sampled)

    def _check_sampled(self, moved: Counter[int]) -> None:
        outputs = [self.world.ledger[shard] for shard in self.world.ledger.entries]
        for step, count in moved.items():
            made = [each for each in outputs if isinstance(each, PartitionOutput) and each.step == step]
            partitions, nbytes = len({each.partition for each in made}), sum(each.ref.nbytes for each in made)
            due = MOST_COPIES + self._leaves(step) / partitions
            if count > due * nbytes:
                what = f"step {step} moved what it sampled {count / nbytes:.1f} times, and {due:.1f} is enough"
                raise self.broken(what, "bytes_derived")

    def _leaves(self, step: int) -> int:
        (engines,) = self.world.engines.values()
        return sum(training.leaves for training in engines.plan(step).trainings)

    def _check_gradients(self, moved: Counter[int]) -> None:
        for step, count in moved.items():
            leaves = self._leaves(step)
            due = leaves + len(self.world.hosts) - 1
            if count > (due + SPARE) * provenance.PARAMETER_BYTES:
                gradients = count / provenance.PARAMETER_BYTES
                raise self.broken(f"step {step} moved {gradients:.1f} gradients, and needs {due}", "bytes_derived")

    def _check_again(self) -> None:
        again = sum(times - 1 for times in self._done.values())
        due = self._lost + AGAIN * self._deaths + AGAIN_SHARE * len(self._done)
        if again > due:
            what = f"{self._deaths} deaths took {self._lost} units, and {again} were done again"
            raise self.broken(what, "redone_lost")


def _units(start: Start, done: Done) -> list[TaskKey]:
    """Partitions, leaves and slices that a call has done: a block may end before all its leaves."""
    if not isinstance(start.work, BlockWork):
        return [done_by(start)]
    ends = [made.block.end for made in done.made if made.block is not None]
    end = max(ends, default=start.work.end)
    return [unit for unit in start.task.singles if unit.leaves[0] < end]
