"""What slots waited for, and what of a step its devices need however it is run. Pure.

A node's step goes from the end of its update before to the end of this one's. Where nothing of the run goes on there,
the time counts for what the step was waiting for then:

    claim      its first rollout: to be dealt and claimed
    rollouts   those of others, with none left to take: the longest completions decide when sampling is over
    seal       copies of the last rollouts, the manifest, and what the first leaf reads
    gradients  those of others
    sum        the slices of the gradient
    version    the update's seal, and applying it

and `machine` is what tasks took beyond their devices' time: the making of payloads, and processors that others had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.scaling.profile import PARTITIONS, Profile
from dflow_cli.report.clocks import ahead_of_others
from dflow_cli.report.spans import Phase, Span, spans_of
from dflow_protocols.names import Partition, part_of
from dflow_protocols.pipeline import Pipeline
from dflowd.engines.emulated.payload import rollout_lengths
from dflowd.engines.emulated.profile import generate_s, profile_of, score_s, train_s

SAMPLING = "roll"
CAUSES = ("claim", "rollouts", "seal", "gradients", "sum", "version", "machine")


@dataclass(frozen=True, slots=True)
class Step:
    """`ideal_s`: until the devices are through, if nothing else takes any time and each does what it did. `waits_s`:
    of all nodes, by cause."""

    number: int
    ideal_s: float
    waits_s: Mapping[str, float]


def on_one_clock(tasks: Iterable[Mapping[str, object]]) -> list[Span]:
    """Of the mesh's answer to `tasks`."""
    rows = list(tasks)
    return spans_of(rows, (), ahead_of_others(spans_of(rows, (), {})))


def steps_of(profile: Profile, pipeline: Pipeline, spans: Sequence[Span]) -> list[Step]:
    """Each step but the first, of which nobody can tell when it began."""
    by_step: dict[int, list[Span]] = {}
    for span in spans:
        if span.phase is not Phase.OTHER and not span.is_failed:
            by_step.setdefault(span.step, []).append(span)
    return [
        _step(_Devices(profile, pipeline, number), by_step[number - 1], by_step[number])
        for number in sorted(by_step)
        if number - 1 in by_step
    ]


def _step(devices: _Devices, before: Sequence[Span], spans: Sequence[Span]) -> Step:
    nodes = sorted({span.node for span in spans})
    begins = {node: _end(before, Phase.APPLY, node) or _end(before, Phase.APPLY) for node in nodes}
    waits = dict.fromkeys(CAUSES, 0.0)
    sampled_s = {node: devices.chains_s(span for span in spans if span.node == node) for node in nodes}
    took_s = 0.0
    for node in nodes:
        own = [span for span in spans if span.node == node]
        took_s += _covered(own, float("-inf"), float("inf"))
        at = begins[node]
        for cause, until in _phases(spans, own):
            waits[cause] += max(0.0, until - at - _covered(own, at, until))
            at = max(at, until)
    train_s = devices.train_s()
    waits["machine"] = max(0.0, took_s - sum(sampled_s.values()) - train_s)
    return Step(devices.step, max(sampled_s.values()) + train_s / len(nodes), waits)


def _phases(spans: Sequence[Span], own: Sequence[Span]) -> list[tuple[str, float]]:
    """What a node's step waits for, and until when, in order."""
    chains = _end(spans, Phase.CHAIN)
    blocks = _end(spans, Phase.BLOCK)
    return [
        ("claim", min((span.begin for span in own if span.phase is Phase.CHAIN), default=chains)),
        ("rollouts", chains),
        ("seal", min((span.begin for span in own if span.phase is Phase.BLOCK), default=chains)),
        ("gradients", blocks),
        ("sum", _end(spans, Phase.SLICE) or blocks),
        ("version", max((span.end for span in own), default=blocks)),
    ]


def _end(spans: Iterable[Span], phase: Phase, node: str = "") -> float:
    """Of the last one of this phase, on that node or on any; 0 where there is none."""
    return max((span.end for span in spans if span.phase is phase and node in ("", span.node)), default=0.0)


def _covered(spans: Iterable[Span], begin: float, end: float) -> float:
    """Seconds of [begin, end) in which one of these ran."""
    total, at = 0.0, begin
    for span in sorted(spans, key=lambda span: span.begin):
        first, last = max(span.begin, at), min(span.end, end)
        total += max(0.0, last - first)
        at = max(at, last)
    return total


class _Devices:
    """What emulated devices take for a step of a run."""

    def __init__(self, profile: Profile, pipeline: Pipeline, step: int) -> None:
        self.step = step
        self._pace, self._group = profile_of(pipeline), profile.group
        partitions = pipeline.stage(SAMPLING).config["partitions"]
        self._lengths = [rollout_lengths(pipeline, step, SAMPLING, at) for at in range(int(partitions))]

    def chains_s(self, spans: Iterable[Span]) -> float:
        """A node's, for the partitions among these: sampled together, as many as a slot takes, then scored."""
        taken = sorted({part.index for span in spans if isinstance(part := part_of(span.part), Partition)})
        took_s = 0.0
        for at in range(0, len(taken), PARTITIONS):
            lengths = [self._lengths[index] for index in taken[at : at + PARTITIONS]]
            took_s += max(generate_s(self._pace, len(each) // self._group, each) for each in lengths)
            took_s += sum(score_s(self._pace, int(each.sum())) for each in lengths)
        return took_s

    def train_s(self) -> float:
        """Of all nodes together."""
        return train_s(self._pace, int(sum(each.sum() for each in self._lengths)))
