"""Parameters in the simulator: which updates they passed, and so which version of a run they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, partial
from math import inf

from ..names import MANIFEST, ShardId
from ..pipeline.plan import Training
from ..ranges import State, in_order, shards_of
from ..steps.view import params_of
from ..versions import kept, lagged
from ..work import BlockWork, ChainWork
from .model.provenance import Ledger, PartitionOutput, Weights
from .model.work import Engines


def check_read(engines: Engines, work: ChainWork) -> None:
    """A chain reads parameters of a version that it may be of: rollouts may be behind what is trained."""
    step_plan = engines.plan(work.step)
    chain = next(chain for chain in step_plan.chains if work.stages[0] in chain.stages)
    frozen = [model for model, _ in chain.bases if model not in chain.models]
    if not step_plan.is_carried and chain.sealed_in == MANIFEST and step_plan.max_staleness:
        check_staleness(engines, parameters_of(work.state), work.step)
        _check_bases(engines, work.state, frozen)
    else:
        number = step_plan.samples_from if chain.sealed_in == MANIFEST else work.step
        check_parameters(engines, work.state, number, frozen)


def check_staleness(engines: Engines, params: tuple[ShardId, ...], step: int) -> None:
    """What was sampled with these parameters may be trained on at a step: it is not too old for that, and of no update
    of that step of the pipeline."""
    oldest, first = engines.plan(step).oldest, engines.first(step)
    models = _read(engines)
    for at, shard in enumerate(params):
        part, model = at % (len(params) // len(models)), models[at // (len(params) // len(models))]
        role = f"params:{model}"
        if model in engines.pipeline.kept:
            _check_passed(engines, shard, role, part, first)
            continue
        due = [s for s in range(first) for training in engines.plan(s).trainings if training.model == model]

        @cache
        def may_miss(at: int, role: str = role) -> bool:
            return at >= oldest or _changes_nothing(engines, role, at)

        way, what = _way(engines.ledger, shard, role, part, due, may_miss), f"step {step} reads what passed the updates"
        told = partial(_told, engines.ledger, shard, role, part)
        assert way is not None, f"{what} {told()}, and the oldest that it may is {oldest}"


def parameters_of(state: State) -> tuple[ShardId, ...]:
    return tuple(ref.id for name, ref in state if name.startswith("params:"))


def check_parameters(
    engines: Engines, state: State, step: int, frozen: Collection[str] = ()
) -> dict[str, list[list[Weights]]]:
    """The parameters are those before `step`: every training step of the model before it was applied, in order, and
    no other. Gives these updates, for each model and each shard of it. `frozen`: models beside them that have no
    parameters in a version, and stand on a base."""
    found: dict[str, list[list[Weights]]] = {}
    for name in sorted({name for name, _ in state if name.startswith("params:")}):
        for part, ref in enumerate(shards_of(state, name)):
            found.setdefault(name, []).append(_check_passed(engines, ref.id, name, part, step))
    _check_bases(engines, state, frozen)
    return found


def _check_passed(engines: Engines, params: ShardId, role: str, part: int, step: int) -> list[Weights]:
    """A part of the parameters passed each update of its model before `step`, in order; of a model that is an earlier
    version of another one each of that one's before it. Gives these."""
    if (of := engines.pipeline.kept.get(role.removeprefix("params:"))) is not None:
        role, step = f"params:{of.model}", min(step, of.number)
    due = [s for s in range(step) for training in engines.plan(s).trainings if role == f"params:{training.model}"]
    way = _way(engines.ledger, params, role, part, due, cache(partial(_changes_nothing, engines, role)))
    what = f"step {step} runs on parameters {params[:8]} that passed the updates"
    assert way is not None, f"{what} {_told(engines.ledger, params, role, part)}, not {due}"
    return way


def _changes_nothing(engines: Engines, role: str, at: int) -> bool:
    """Whether an update has nothing to train on: all of it was lost, as a node said, or none of it is kept."""
    is_given_up = any(engines.first(at) < lost <= at for lost in engines.ledger.given_up)
    return is_given_up or any(
        _keeps_nothing(engines, training, at)
        for training in engines.plan(at).trainings
        if role == f"params:{training.model}"
    )


def _keeps_nothing(engines: Engines, training: Training, at: int) -> bool:
    """Whether what was made for an update's step may be without a group for it: of what several executions of a
    partition made any may be sealed."""
    fewest: dict[int, list[tuple[int, int]]] = {}
    for made in engines.ledger.made_by(training.groups_from, engines.first(at), str(engines.pipeline.id)):
        kept = [(made.partition, place) for place, (tokens, _) in enumerate(made.groups) if tokens]
        fewest[made.partition] = min(kept, fewest.get(made.partition, kept), key=len)
    kept = sorted(group for groups in fewest.values() for group in groups)
    return bool(fewest) and not training.share(kept)


def _check_bases(engines: Engines, state: State, frozen: Collection[str] = ()) -> None:
    """Whatever stands on a base comes with what the first version says of it, and with nothing else."""
    models = {name.removeprefix("params:") for name, _ in state if name.startswith("params:")} | {*frozen}
    due = {f"base:{model}": owner for model in models if (owner := engines.pipeline.stands_on(model)) is not None}
    named = [(name, ref) for name, ref in state if name.startswith("base:")]
    assert [name for name, _ in named] == sorted(due), f"bases {named} are given, due are {sorted(due)}"
    for name, ref in named:
        made = engines.ledger.weights(ref.id, f"base:{due[name]}", 0)
        assert any(not each.parent for each in made), f"{name} is not the first version's"


def check_carried(engines: Engines, state: State, step: int) -> None:
    """A version has the parameters of those before it that the run's lag asks for, which are the last ones that began a
    step of the pipeline, or that its models are to be, and no others."""
    place = engines.pipeline.schedule.place(step)
    begun = place.step if place.update == 0 else place.step + 1
    carried = {name for name, _ in state if name.startswith((lagged.PREFIX, kept.PREFIX))}
    due = lagged.roles(engines.pipeline)
    whole = due.keys() | kept.roles(engines.pipeline).keys()
    assert carried == whole, f"the version of step {step} carries {sorted(carried)}, due are {sorted(whole)}"
    for name in engines.pipeline.kept:
        owner = engines.pipeline.stands_on(name)
        check_parameters(engines, params_of(state, [name], [(name, owner)] if owner else []), step)
    for name, model in due.items():
        behind = int(name.removeprefix(lagged.PREFIX).partition(":")[0])
        older = [(f"params:{model}", ref) for ref in shards_of(state, name)]
        bases = [(f"base:{model}", ref) for ref in shards_of(state, f"base:{model}")]
        check_parameters(engines, in_order([*bases, *older]), engines.pipeline.schedule.first(max(0, begun - behind)))


def check_sampled(engines: Engines, work: BlockWork, given: Collection[PartitionOutput]) -> None:
    """A block's rollouts are of the parameters that it trains, or of what these were as many steps before as
    rollouts are behind. (Of which version they are is looked at where they are made.)"""
    found = next((entry.params for entry in given if entry.params), None)
    if found is None:  # demonstrations are read by no model
        return
    if engines.pipeline.max_staleness:
        for entry in given:
            if entry.params:
                check_staleness(engines, entry.params, work.step)
                _check_branch(engines, entry.params, work)
        return
    _check_sampled(engines, found, work, engines.plan(work.step).samples_from)


def _check_branch(engines: Engines, sampled: tuple[ShardId, ...], work: BlockWork) -> None:
    """Of each model that is trained what sampled is what is trained, or was it before."""
    models, kept_of = _read(engines), engines.pipeline.kept
    parts = len(sampled) // len(models)
    for place, model in enumerate(models):
        role = f"params:{kept_of[model].model if model in kept_of else model}"
        for part, ref in enumerate(shards_of(work.state, role)):
            led = {shard for shard, _ in _back(engines.ledger, ref.id, role, part)}
            is_ancestor = sampled[place * parts + part] in led
            assert is_ancestor, f"step {work.step} trains `{model}` on rollouts of another branch"


def _check_sampled(engines: Engines, params: tuple[ShardId, ...], work: BlockWork, first: int) -> None:
    """Rollouts were made with the parameters of version `first`, and with those that the ones of a block came of."""
    models = _read(engines)
    for at, shard in enumerate(params):
        part, role = at % (len(params) // len(models)), f"params:{models[at // (len(params) // len(models))]}"
        _check_passed(engines, shard, role, part, first)
        now = [ref.id for ref in shards_of(work.state, role)]
        led = _before(engines.ledger, now[part], role, part, first) if now else {shard}
        assert shard in led, f"step {work.step} trains on rollouts that were made with other parameters"


def _read(engines: Engines) -> tuple[str, ...]:
    """The models whose parameters rollouts read, in the order in which a work has them."""
    stages = [stage for stage in engines.pipeline.stages if stage.operator.is_on_partitions]
    asked = {stage.model for stage in stages if not stage.operator.evaluates}
    return tuple(sorted({*engines.pipeline.sampled, *(name for name in engines.pipeline.kept if name in asked)}))


def _before(ledger: Ledger, params: ShardId, role: str, part: int, step: int) -> set[ShardId]:
    """What a part of the parameters was when `step` began: one shard, unless things are alike."""
    led = _back(ledger, params, role, part, step)
    return {shard for shard, made in led if not (made.parent and made.step >= step)}


def _back(ledger: Ledger, params: ShardId, role: str, part: int, since: int = 0) -> Iterator[tuple[ShardId, Weights]]:
    """This part of the parameters and all that led to it since a step, each with what made it. Where things are alike
    many ways do, twice as many with each update that does nothing; so each place on them is passed once."""
    ahead: list[tuple[ShardId, float]] = [(params, inf)]
    seen = set(ahead)
    while ahead:
        shard, later = ahead.pop()
        for made in ledger.weights(shard, role, part):
            if made.parent and made.step >= later:
                continue
            yield shard, made
            place = (_parent(made, role, part), made.step) if made.parent and made.step >= since else None
            if place is not None and place not in seen:
                seen.add(place)
                ahead.append(place)


def _parent(made: Weights, role: str, part: int) -> ShardId:
    """What an update changed."""
    return [shard for name, shard in made.parent if name == role][part]


def _way(
    ledger: Ledger, params: ShardId, role: str, part: int, due: Sequence[int], may_miss: Callable[[int], bool]
) -> list[Weights] | None:
    """Updates that led to this part of the parameters, first to last: all that are due, but for some that may be
    missed, as few as can be. None if there is no such way."""
    lost: set[tuple[ShardId, int]] = set()  # places from which none leads back

    def back(at: ShardId, left: int) -> list[Weights] | None:
        """`left`: how many of the first of them are to be found yet."""
        if (at, left) in lost:
            return None
        made = ledger.weights(at, role, part)
        for place in range(left, 0, -1):
            for each in made:
                if each.parent and each.step == due[place - 1]:
                    way = back(_parent(each, role, part), place - 1)
                    if way is not None:
                        return [*way, each]
            if not may_miss(due[place - 1]):
                break
        else:
            if any(not each.parent for each in made):
                return []
        lost.add((at, left))
        return None

    return back(params, len(due))


def _told(ledger: Ledger, params: ShardId, role: str, part: int) -> str:
    """For a person, the updates that led to this part of the parameters, in any order."""
    return str(sorted({made.step for _, made in _back(ledger, params, role, part) if made.parent}))
