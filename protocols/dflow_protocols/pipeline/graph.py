"""Who reads what: the stages of a pipeline as a graph, its order, and the parts that run as one chain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from .grammar.problem import Problem, nearest, suggest
from .grammar.signatures import OPERATORS, Operator, operator_of

EVERYTHING = "*"  # in `reads`: all that stages before it made of the same completions


@dataclass(slots=True)
class Vertex:
    """A stage as the graph sees it. `place`: its path in the spec."""

    id: str
    op: str
    place: str
    asked: tuple[str, ...]  # `reads` as written
    needed: tuple[str, ...]  # outputs that it has to read by its operator, where `asked` names none of them
    writes: tuple[str, ...]
    after: tuple[str, ...]
    weighed: tuple[str, ...] = ()  # stages whose rewards it adds up
    is_open: bool = False  # whether it may read outputs that its operator does not know
    is_segment: bool = False  # made by `async.partial`: what is wrong with it is told of the stage that it goes on from
    reads: list[str] = field(default_factory=list)  # "stage.output", found

    @property
    def operator(self) -> Operator:
        return operator_of(self.op)

    @property
    def is_built_in(self) -> bool:
        return self.op in OPERATORS

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the stages that it reads from."""
        return tuple(dict.fromkeys(read.partition(".")[0] for read in self.reads))


def connect(vertices: Sequence[Vertex]) -> list[Problem]:
    """Find what each vertex reads (`reads` is filled in), and what is wrong with it."""
    problems: list[Problem] = []
    for index, vertex in enumerate(vertices):
        for position, text in enumerate(vertex.asked):
            if text == EVERYTHING and not vertex.is_built_in:
                continue
            place = f"{vertex.place}.reads[{position}]"
            found = _named(vertex, text, place, vertices, index, problems)
            if found is not None and found not in vertex.reads:
                vertex.reads.append(found)
        for name in vertex.weighed:
            place = f"{vertex.place}.config.rewards.{name}"
            found = _named(vertex, f"{name}.{vertex.operator.compares}", place, vertices, index, problems)
            if found is not None and found not in vertex.reads:
                vertex.reads.append(found)
        given = {read.partition(".")[2] for read in vertex.reads}
        given |= {vertex.operator.compares} if vertex.weighed else set()
        for output in vertex.needed:
            if output in given or any(text.rpartition(".")[2] == output for text in vertex.asked):
                continue
            writer = _nearest_writer(vertices, index, output)
            if writer is None:
                problems.append(_nobody(vertex, output, vertices, vertex.place))
            else:
                vertex.reads.append(f"{writer.id}.{output}")
        vertex.reads += _heeded(vertex, given, vertices[:index])
        if EVERYTHING in vertex.asked:
            vertex.reads += [read for read in _all_before(vertex, vertices[:index]) if read not in vertex.reads]
        _order_reads(vertex)
        problems.extend(_doubles(vertex))
    for vertex in vertices:
        problems.extend(_wrong_after(vertex, vertices))
    return problems or _cycle(vertices)


def _heeded(vertex: Vertex, given: Collection[str], before: Sequence[Vertex]) -> list[str]:
    """What its operator heeds, of stages before it that read the same rollout; nothing of what it names itself."""
    said = {read for read in vertex.reads if read.endswith(".rollout")}
    return [
        f"{other.id}.{output}"
        for output in vertex.operator.heeds
        if output not in given
        for other in before
        if output in other.writes and not said.isdisjoint(other.reads)
    ]


def _order_reads(vertex: Vertex) -> None:
    """The operator's order where it has one, so that one pipeline has one canonical form; by name what is added up."""
    rank = {output: place for place, output in enumerate(vertex.needed)}
    if vertex.weighed:
        vertex.reads.sort()
    vertex.reads.sort(key=lambda read: rank.get(read.partition(".")[2], len(rank)))


def _doubles(vertex: Vertex) -> list[Problem]:
    """A built-in operator knows one of each output, and would pass over all others in silence. An `advantage` adds
    rewards up by their weights; `train` tells log-probabilities apart by their models, which is checked there."""
    if not vertex.is_built_in:
        return []
    operator = vertex.operator
    found = []
    for output in dict.fromkeys((*vertex.needed, *(read.partition(".")[2] for read in vertex.reads))):
        reads = [read for read in vertex.reads if read.partition(".")[2] == output]
        unweighed = [read for read in reads if read.partition(".")[0] not in vertex.weighed]
        is_weighed = output == operator.compares and bool(vertex.weighed)
        if is_weighed and unweighed:
            what = f"stage `{vertex.id}` reads `{unweighed[0]}`, which `rewards` gives no weight"
            found.append(Problem(f"{vertex.place}.reads", what, "give it one; 0 if it is only to be measured"))
        elif len(reads) > 1 and output not in (*operator.may_read, *operator.heeds) and not is_weighed:
            names = " and ".join(f"`{read}`" for read in reads)
            weights = ", ".join(f"{read.partition('.')[0]}: 1.0" for read in reads)
            is_sum = output == operator.compares
            hint = f"weigh them in its config, `rewards: {{{weights}}}`" if is_sum else "keep one of them"
            what = f"stage `{vertex.id}` reads {names}, and uses one `{output}`"
            found.append(Problem(f"{vertex.place}.reads", what, hint))
    return found


def _all_before(vertex: Vertex, before: Sequence[Vertex]) -> list[str]:
    """What the stages before it wrote of the completions that it reads, as written."""
    chain = next((chain for chain in chains_of(before) if not set(chain).isdisjoint(vertex.sources)), ())
    return [f"{other.id}.{output}" for other in before if other.id in chain for output in other.writes]


def _nearest_writer(vertices: Sequence[Vertex], index: int, output: str) -> Vertex | None:
    return next((v for v in reversed(vertices[:index]) if output in v.writes), None)


def _named(
    vertex: Vertex, text: str, place: str, vertices: Sequence[Vertex], index: int, problems: list[Problem]
) -> str | None:
    """The "stage.output" that one item of `reads` means."""
    stage, dot, output = text.rpartition(".")
    known = (*vertex.needed, *vertex.operator.may_read, *vertex.operator.heeds)
    if vertex.is_built_in and not vertex.is_open and output not in known:
        what = f"stage `{vertex.id}` reads `{text}`, but `{vertex.op}` has no use for `{output}`"
        problems.append(Problem(place, what, suggest(output, known, "inputs")))
        return None
    if not dot:
        writer = _nearest_writer(vertices, index, output)
        if writer is None:
            problems.append(_nobody(vertex, output, vertices, place))
            return None
        return f"{writer.id}.{output}"
    writer = next((v for v in vertices if v.id == stage), None)
    if writer is None:
        what = f"stage `{vertex.id}` reads `{text}`, but there is no stage `{stage}`"
        problems.append(Problem(place, what, suggest(stage, [v.id for v in vertices], "stages")))
    elif output not in writer.writes:
        what = f"stage `{vertex.id}` reads `{text}`, but `{stage}` writes no `{output}`"
        problems.append(Problem(place, what, suggest(output, writer.writes, "outputs")))
    else:
        return text
    return None


def _nobody(vertex: Vertex, output: str, vertices: Sequence[Vertex], place: str) -> Problem:
    what = f"stage `{vertex.id}` reads `{output}`, which no stage before it writes"
    later = next((v.id for v in vertices if output in v.writes and v is not vertex), None)
    if later is not None:
        return Problem(place, what, f"move `{later}`, which writes it, before `{vertex.id}`")
    makers = [f"a `{name}` stage" for name, operator in OPERATORS.items() if output in operator.writes]
    makers += [
        f"an `{name}` stage with `method: {method}`"
        for name, operator in OPERATORS.items()
        for method, row in operator.methods.items()
        if output in row.writes
    ]
    near = nearest(output, {name for v in vertices for name in v.writes})
    if makers:
        return Problem(place, what, f"add {makers[0]} before it")
    return Problem(place, what, f"did you mean `{near}`?" if near else "name an output of a stage before it")


def _wrong_after(vertex: Vertex, vertices: Sequence[Vertex]) -> list[Problem]:
    ids = [v.id for v in vertices]
    return [
        Problem(
            f"{vertex.place}.after[{position}]",
            f"stage `{vertex.id}` comes after `{name}`, which is no stage",
            suggest(name, ids, "stages"),
        )
        for position, name in enumerate(vertex.after)
        if name not in ids
    ]


def _cycle(vertices: Sequence[Vertex]) -> list[Problem]:
    left = {v.id for v in vertices} - set(order(vertices))
    if not left:
        return []
    by_id = {v.id: v for v in vertices}
    walk = [min(left)]
    while walk[-1] not in walk[:-1]:  # every stage that is left waits for another one that is left
        before = by_id[walk[-1]]
        walk.append(min(name for name in (*before.sources, *before.after) if name in left))
    loop = walk[walk.index(walk[-1]) :][::-1]
    what = f"stages wait for each other: {' -> '.join(f'`{name}`' for name in loop)}"
    return [Problem(by_id[loop[0]].place, what, "take one of these out of `reads` or `after`")]


def order(vertices: Sequence[Vertex]) -> tuple[str, ...]:
    """Stage ids such that each comes after what it waits for, else as written; those in a cycle are left out."""
    done: list[str] = []
    waiting = list(vertices)
    while True:
        ready = next((v for v in waiting if all(name in done for name in (*v.sources, *v.after))), None)
        if ready is None:
            return tuple(done)
        waiting.remove(ready)
        done.append(ready.id)


def chains_of(vertices: Sequence[Vertex]) -> tuple[tuple[str, ...], ...]:
    """The parts that run as one chain, by the ids of their stages."""
    by_id = {vertex.id: vertex for vertex in vertices}
    sources = {name: by_id[name].sources for name in order(vertices)}
    return chains(sources, [vertex.id for vertex in vertices if not vertex.operator.is_on_partitions])


def chains(sources: Mapping[str, tuple[str, ...]], training: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Group stages that are connected by reads, each group in the given order.

    `sources`: stage -> stages it reads from, in running order. `training`: stages that are no part of a chain.
    """
    owner: dict[str, str] = {}  # stage -> name of its group, which is its first stage
    for stage, read in sources.items():
        if stage in training:
            continue
        joined = [owner[name] for name in read if name in owner]
        first = min(joined, key=list(owner).index) if joined else stage
        owner[stage] = first
        owner.update({name: first for name, group in owner.items() if group in joined})
    groups: dict[str, list[str]] = {}
    for stage, first in owner.items():
        groups.setdefault(first, []).append(stage)
    return tuple(tuple(stages) for stages in groups.values())
