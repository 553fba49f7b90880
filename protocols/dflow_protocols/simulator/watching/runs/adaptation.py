"""Weights that follow what was measured: each version's are what the version before and the manifest make of them."""

from __future__ import annotations

from math import fsum, isclose

from ....events import Advanced
from ....metrics import REFERENCE_KL_COUNT, REFERENCE_KL_SAMPLES, REFERENCE_KL_SUM
from ....names import SealId
from ....pipeline.weighing import Adaptive, adaptive
from ....wire.steps import Seal
from ...model.host import Host
from ..checker import Checker, Seen, state_of


class Adaptation(Checker):
    """`weights_follow`."""

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced}

    def _advanced(self, host: Host, action: Advanced) -> None:
        pipeline, state = self.world.engines[action.run].pipeline, state_of(host, action.run)
        own = None if state is None else state.versions.own
        weights = adaptive(pipeline)
        if not weights or state is None or own is None or own.id != action.head.version:
            return
        found, began = dict(own.coefficients), {each.stage: each.coefficient for each in weights}
        parent = None if own.parent is None else state.versions.headers.get(own.parent)
        if own.parent is None:
            if found != began:
                raise self.broken(f"version 0 at {host.name} has the weights {found}, not {began}", "weights_follow")
            return
        step = state.steps.get(own.step - 1)
        seals = {} if step is None else step.seals
        update = seals.get(SealId(own.seal))
        if parent is None or update is None:
            return  # it was copied, and what led to it is not known here
        place, manifest = pipeline.schedule.place(update.step), seals.get(SealId(update.previous))
        if manifest is None and update.previous != parent.id:
            return  # the update came with a header, and its manifest did not
        before = dict(parent.coefficients)
        is_last = place.update == place.updates - 1
        due = {each.stage: _due(each, before[each.stage], manifest if is_last else None) for each in weights}
        if found.keys() != due.keys() or not all(isclose(found[stage], due[stage]) for stage in due):
            raise self.broken(f"version {own.step} at {host.name} has the weights {found}, not {due}", "weights_follow")


def _due(weight: Adaptive, before: float, manifest: Seal | None) -> float:
    """In short runs none goes far enough to be held."""
    told = [dict(each.metrics) for each in manifest.entries if each.task.stage == weight.measured] if manifest else []
    tokens, samples = (fsum(each[name] for each in told) for name in (REFERENCE_KL_COUNT, REFERENCE_KL_SAMPLES))
    if not tokens:
        return before
    apart = fsum(each[REFERENCE_KL_SUM] for each in told) / tokens
    share = min(samples, weight.horizon) / weight.horizon
    if apart > 1.2 * weight.target:
        return before * (1 + 0.2 * share)
    if apart < 0.8 * weight.target:
        return before * (1 - 0.2 * share)
    return before + before * share * (apart - weight.target) / weight.target
