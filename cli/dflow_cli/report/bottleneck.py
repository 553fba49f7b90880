"""What a run waited for most, in sentences, each with what would help. Pure: nothing is said but what follows from the
figures, and where they do not tell what would help, nothing is proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from .critical import Cause
from .loads import Load, Tail, Wait

SLOW = 1.5  # times the others' pace: less may be one host's other work
ALIKE = 1.25  # times the fastest node's pace, up to which all are said to be alike
SHORT = 4.0  # times the wait between two tasks: of a task that is shorter much of its slot's time is waiting
LEAST_SHARE = 0.05  # of a step, for what is told beside the first sentence
LEAST_PART = 0.01  # of a step, for other parts of a stage to be told beside one
FINDINGS = 4
PLURALS = {"partition": "partitions", "leaf": "leaves"}  # pieces that nodes share


@dataclass(frozen=True, slots=True)
class Setting:
    """What the figures are of. `ops`: stage -> operator. `slots`: of all nodes together, `hosts` that they lie on; 0
    where that is not known. `has_gpus`: None where it is not known."""

    ops: Mapping[str, str] = field(default_factory=dict)
    slots: int = 0
    hosts: int = 0
    has_gpus: bool | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was found, and what would `help`, in whole sentences; `help` may be empty. `share` of the time of a step,
    `a_step_s` of it. `stage`: that it is about, empty where it is about none."""

    what: str
    help: str
    share: float
    a_step_s: float
    stage: str = ""


def findings_of(loads: Sequence[Load], waits: Sequence[Wait], tails: Sequence[Tail], setting: Setting) -> list[Finding]:
    """What takes most of a step first, then what else is worth a look, by its share. Empty where no step is known."""
    whole: dict[str, float] = {}
    for load in loads:
        whole[load.stage] = whole.get(load.stage, 0.0) + load.share
    main = [_of_stage(load, whole[load.stage], setting) for load in loads if load.share > 0]
    waiting = [_of_wait(wait, loads, setting) for wait in waits if wait.is_of_steps]
    first = max([*main, *waiting], key=lambda found: found.share, default=None)
    if first is None:
        return []
    slow = [found for load in loads if (found := _slow_node(load, tails, loads))]
    told = {found.stage for found in slow}
    uneven = [found for load in loads if load.name not in told and (found := _uneven(load, tails, loads, setting))]
    rest = [found for found in (*main, *waiting, *slow, *uneven) if found is not first and found.share >= LEAST_SHARE]
    return [first, *sorted(rest, key=lambda found: -found.share)][:FINDINGS]


# A stage ----------------------------------------------------------------------------------------------------------


def _of_stage(load: Load, whole: float, setting: Setting) -> Finding:
    """`whole`: the share of the stage that it is a part of."""
    what = (
        f"`{load.name}` takes {percent(load.share)} of the time of the steps "
        f"({duration(load.a_step_s)} in each of the {load.steps} steps that have it){_alike(load)}."
    )
    if whole > load.share + LEAST_PART:
        what += f" With the other parts of `{load.stage}` it is {percent(whole)}."
    return Finding(what, _faster(load, setting), load.share, load.a_step_s, load.name)


def _alike(load: Load) -> str:
    paces = sorted(load.paces.values())
    if len(paces) < 2 or paces[0] <= 0:
        return ""
    if paces[-1] <= ALIKE * paces[0]:
        nodes = sorted(load.paces)
        return f", on {' and '.join(nodes) if len(nodes) == 2 else f'{len(nodes)} nodes'} alike"
    slowest = max(load.paces, key=lambda node: (load.paces[node], node))
    return f", the slowest on {slowest} ({paces[-1] / paces[0]:.1f} times the time of the fastest for a piece)"


def _faster(load: Load, setting: Setting) -> str:
    """What would shorten a stage, by what it does and how far it is spread."""
    op, part = setting.ops.get(load.stage, ""), load.name.removeprefix(load.stage)
    if part == ".apply":
        return (
            "Each node that trains applies the whole update to its own copy, so more nodes do not shorten it: fewer "
            "trained parameters (adapters) or a faster host would."
        )
    if part == ".reduce":
        return (
            f"Fewer trained parameters (adapters) or more {_places(setting)} would help: each node sums its share of "
            "the gradient."
        )
    if load.name == "save":
        return "Checkpoints less often would: a higher `checkpoint.every`."
    quicker = {
        "generate": "faster sampling" + (" (a GPU)" if setting.has_gpus is False else ""),
        "train": "a faster device",
        "sft": "a faster device",
        "evaluate": "evaluating less often (`every`) or fewer entries",
        "logprob": "a faster device",
        "reward": "a faster function",
    }.get(op, "")
    spread = _spread(load, setting)
    if not spread:
        return f"{_begin(quicker)} would help." if quicker else ""
    more, is_open = spread
    if is_open:
        return _begin(f"{f'{quicker} or ' if quicker else ''}more {_places(setting)} would help: {more}.")
    return _begin(f"{f'{quicker} would help, and ' if quicker else ''}more nodes would not: {more}.")


def _spread(load: Load, setting: Setting) -> tuple[str, bool] | None:
    """Whether a step has more pieces of the stage than can run at once, and that in words."""
    if not setting.slots or load.piece not in PLURALS:
        return None
    pieces = f"a step has up to {_pieces(load)} of it"
    if load.pieces > setting.slots:
        return f"{pieces} for {_count(setting.slots, 'slot')}", True
    return f"{pieces}, and {_count(setting.slots, 'slot')} are there for them", False


def _places(setting: Setting) -> str:
    """Where one host has all the nodes, another daemon on it brings no cores."""
    return "hosts" if setting.hosts == 1 else "nodes"


def _pieces(load: Load) -> str:
    return f"{load.pieces} {load.piece if load.pieces == 1 else PLURALS[load.piece]}"


# Waiting ----------------------------------------------------------------------------------------------------------


def _of_wait(wait: Wait, loads: Sequence[Load], setting: Setting) -> Finding:
    what = (
        f"{percent(wait.share)} of the time of the steps ({duration(wait.a_step_s)} a step) is waiting: {wait.cause}."
    )
    return Finding(what, _shorter(wait, loads, setting), wait.share, wait.a_step_s)


def _shorter(wait: Wait, loads: Sequence[Load], setting: Setting) -> str:
    match wait.cause:
        case Cause.BETWEEN:
            between = wait.seconds / wait.times
            main = next((load for load in loads if load.piece == "partition"), None)  # its chain's longest stage
            if main is None or main.pieces <= setting.slots or main.task_s >= SHORT * between:
                return ""
            return (
                f"Fewer, larger `partitions` would help: the median task of `{main.name}` takes "
                f"{duration(main.task_s)}, and {duration(between)} pass between two tasks."
            )
        case Cause.MANIFEST | Cause.GRADIENTS | Cause.SLICES if setting.hosts > 1:
            return "A faster network between the hosts would help, or larger steps, in which it weighs less."
        case Cause.MANIFEST | Cause.GRADIENTS | Cause.SLICES | Cause.NEXT_STEP if setting.hosts == 1:
            return "The daemons share one host with their engines: larger steps would let it weigh less."
        case Cause.DEATH:
            return "How long it takes until a death is noticed is set by `timing`: `local` is the quickest."
        case _:
            return ""


# Nodes ------------------------------------------------------------------------------------------------------------


def _slow_node(load: Load, tails: Sequence[Tail], loads: Sequence[Load]) -> Finding | None:
    """One node is behind all others, and these wait for it."""
    if len(load.paces) < 2:
        return None
    slowest = max(load.paces, key=lambda node: (load.paces[node], node))
    others = median(pace for node, pace in load.paces.items() if node != slowest)
    if others <= 0 or load.paces[slowest] < SLOW * others:
        return None
    tail = next((tail for tail in tails if (tail.name, tail.node) == (load.name, slowest)), None)
    a_step_s = tail.wait_s / load.steps if tail else 0.0
    what = (
        f"{slowest} takes {load.paces[slowest] / others:.1f} times as long as the others for a piece of `{load.name}`: "
        f"they wait {duration(a_step_s)} a step for it."
    )
    return Finding(
        what,
        f"A faster host in place of {slowest} would help.",
        _share_of(tail.wait_s if tail else 0.0, loads),
        a_step_s,
        load.name,
    )


def _uneven(load: Load, tails: Sequence[Tail], loads: Sequence[Load], setting: Setting) -> Finding | None:
    """The last task of a phase keeps all others waiting, whoever has it."""
    waited = sum(tail.wait_s for tail in tails if tail.name == load.name)
    if waited <= 0:
        return None
    a_step_s = waited / load.steps
    what = f"At the end of `{load.name}` the other nodes wait {duration(a_step_s)} a step for its last task."
    help_ = ""
    if setting.slots and load.piece in PLURALS and load.pieces % setting.slots:
        over = _count(setting.slots, "slot")
        help_ = f"{_pieces(load)} do not divide evenly over {over}: more of them, or a multiple, would help."
    return Finding(what, help_, _share_of(waited, loads), a_step_s, load.name)


def _share_of(seconds: float, loads: Sequence[Load]) -> float:
    known = next(((load.path_s / load.share) for load in loads if load.share > 0), 0.0)
    return seconds / known if known else 0.0


# Words ------------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """`0.4 ms`, `35 ms`, `1.43 s`, `48 s`."""
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
