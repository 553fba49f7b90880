"""A pipeline: what a user writes, in full and checked, with one canonical form and one id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import InitVar, dataclass, field, fields
from functools import cached_property
from typing import Any, Self

from ..names import SpecId, content_id
from .grammar.engines import DEVICES, ENGINES, EXACT
from .grammar.layout import KEPT, PLAN_VERSION, STAGE, TOP
from .grammar.problem import Problem, SpecError
from .grammar.shape import is_left_out
from .grammar.signatures import Operator, operator_of
from .schedule import Schedule
from .validate import resolve

FIELDS = {"async": "asynchrony"}  # keys of the format that are words of Python's
KEYS = {name: key for key, name in FIELDS.items()}
ABOUT_THE_RUN = ("checkpoint", "on_poison", "on_split", "limits")  # keys that no random number may depend on


@dataclass(frozen=True)
class Stage:
    """A vertex of the graph; the keys are those of the format. `op`: a built-in operator or `module:function`."""

    id: str
    op: str
    model: str | None = None
    reads: Sequence[str] = ()  # in a pipeline: always "stage.output"
    writes: Sequence[str] = ()
    after: Sequence[str] = ()
    scope: str | None = None
    when: str | bool | None = None
    every: int = 1
    rounds: Mapping[str, Any] | None = None
    requires: Sequence[str] = ()
    effect: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None  # None: the pipeline's
    per_token: Sequence[str] = ()  # of `writes`: those with a number for each token

    @property
    def operator(self) -> Operator:
        return operator_of(self.op)

    @property
    def width(self) -> int:
        """Completions of each group that it makes, where it begins a chain."""
        begins = self.operator.begins
        return int(self.config.get("group", begins.width if begins is not None else 1))

    def to_dict(self) -> dict[str, Any]:
        """The format's mapping of it, as `Pipeline.to_dict` gives the whole."""
        whole = {item.name: getattr(self, item.name) for item in fields(self)}
        return deepcopy({name: value for name, value in whole.items() if not is_left_out(STAGE[name], value)})


@dataclass(frozen=True, slots=True)
class Kept:
    """A model is as `model` is in the version with this number."""

    model: str
    number: int


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline that can run: making one checks it, fills every default in and puts the params in.

    Raises SpecError with every problem. Two pipelines are equal if they mean the same. Do not change what it holds.
    """

    name: str
    steps: int | str
    models: Mapping[str, Mapping[str, Any]]
    stages: Sequence[Stage]
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plan_version: int = PLAN_VERSION
    seed: int = 0
    params: Mapping[str, int | float | bool] = field(default_factory=dict)  # put in, and then empty
    reproducibility: str | None = None  # filled in by what the engines claim
    lag: int = 0
    asynchrony: Mapping[str, Any] | None = None  # the key `async`
    engine: str = "torch"
    emulated: Mapping[str, float] = field(default_factory=dict)
    on_poison: str = "fail"
    checkpoint: Mapping[str, int] = field(default_factory=dict)
    on_split: str = "continue"
    limits: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    algorithm: InitVar[str | None] = None  # becomes stages

    def __post_init__(self, algorithm: str | None) -> None:
        raw = self._by_key() | {"algorithm": algorithm}
        if isinstance(self.stages, Sequence):
            raw["stages"] = [stage.to_dict() if isinstance(stage, Stage) else stage for stage in self.stages]
        self._fill(*resolve(raw))

    def _fill(self, resolved: dict[str, Any], schedule: Schedule) -> None:
        values: dict[str, Any] = resolved | {"stages": tuple(Stage(**stage) for stage in resolved["stages"])}
        for name, value in values.items():
            object.__setattr__(self, FIELDS.get(name, name), value)
        object.__setattr__(self, "_schedule", schedule)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """From the format's mapping, such as a parsed YAML file. Raises SpecError."""
        pipeline = object.__new__(cls)
        pipeline._fill(*resolve(raw))
        return pipeline

    @classmethod
    def from_canonical(cls, canonical: bytes) -> Self:
        """From the bytes of `canonical()`. Raises SpecError for anything else, an equal but other text included."""
        try:
            raw = json.loads(canonical)
        except (ValueError, RecursionError):
            raw = None
        pipeline = cls.from_dict(raw)
        if pipeline.canonical() != canonical:
            raise SpecError([Problem("", "these bytes are not a pipeline's canonical form", "submit it again")])
        return pipeline

    def to_dict(self) -> dict[str, Any]:
        """The format's mapping in full: every key, defaults included, but for those that only some pipelines have. It
        is the caller's to change."""
        whole = {key: value for key, value in self._by_key().items() if not is_left_out(TOP[key], value)}
        return deepcopy(whole | {"stages": [stage.to_dict() for stage in self.stages]})

    def _by_key(self) -> dict[str, Any]:
        return {KEYS.get(item.name, item.name): getattr(self, item.name) for item in fields(self)}

    def canonical(self) -> bytes:
        """JSON with every key, keys sorted, without spaces: equal for all ways to write the same pipeline."""
        return self._canonical

    @cached_property
    def _canonical(self) -> bytes:
        return _text(self.to_dict())

    @cached_property
    def id(self) -> SpecId:
        """Of what decides results: all seeds follow from it. How a run is kept and guarded is not part of it, so that
        a checkpoint more gives no other weights."""
        return SpecId(content_id("spec", _text({k: v for k, v in self.to_dict().items() if k not in ABOUT_THE_RUN})))

    @cached_property
    def text_id(self) -> str:
        """Of every key: names runs."""
        return content_id("pipeline", self._canonical)

    @property
    def schedule(self) -> Schedule:
        """When each stage runs."""
        schedule: Schedule = self.__dict__["_schedule"]
        return schedule

    @property
    def max_staleness(self) -> int:
        """How many steps rollouts may be behind, where they are of whatever version there is; 0: they are not."""
        return int(self.asynchrony["max_staleness"]) if self.asynchrony is not None else 0

    @property
    def ahead(self) -> int:
        """How many steps beyond its own a node samples for."""
        return max(self.lag, self.max_staleness)

    def ahead_of(self, number: int) -> Sequence[int]:
        """Numbers of the versions that these steps begin with, for a node that works from the version `number`."""
        return self.schedule.begun_after(number, self.ahead)

    def rostered_with(self, number: int) -> int | None:
        """Number of the version that begins with a roster which is made with the update of the version `number`. None
        where the run has ended by then: what follows the last update of a step has its roster already, and those that
        are opened ahead get theirs."""
        if not self.schedule.place(number).is_last:
            return number + 1
        opened = self.schedule.begun_after(number, self.ahead + 1)
        return opened[self.ahead] if len(opened) > self.ahead else None

    @cached_property
    def trainable(self) -> tuple[str, ...]:
        """Models that some stage trains, sorted: those whose parameters are part of a version."""
        return tuple(sorted({str(stage.model) for stage in self.stages if stage.operator.trains}))

    @cached_property
    def kept(self) -> Mapping[str, Kept]:
        """Models that are a version of a trained one, by name, sorted: each version has their parameters with it."""
        found = {name: model for name, model in self.models.items() if KEPT in model}
        return {name: Kept(model[KEPT], self.schedule.first(model["at"])) for name, model in sorted(found.items())}

    @cached_property
    def sampled(self) -> tuple[str, ...]:
        """Of these the models that rollouts are made with, sorted: what a version has of those before it, if `lag` says
        so."""
        stages = [stage for stage in self.stages if stage.operator.is_on_partitions and not stage.operator.evaluates]
        readers = {stage.model for stage in stages if stage.operator.model == "parameters"}
        return tuple(name for name in self.trainable if name in readers)

    @cached_property
    def bases(self) -> tuple[str, ...]:
        """Trained models of which a version holds adapters alone, sorted. Their own weights are opened, or drawn, by
        every engine for itself, and held against the hash that version 0 names."""
        has_weights = ENGINES[self.engine].opens_files
        return tuple(name for name in self.trainable if has_weights and self.models[name].get("lora") is not None)

    def folder_of(self, model: str) -> str:
        """Where a trained model lies in a checkpoint: "", its top, for the first that says tokens, else its name."""
        speaking = [name for name in self.trainable if not self.models[name].get("head")]
        return "" if model == (*speaking, *self.trainable)[0] else model

    def described(self, model: str) -> Mapping[str, Any]:
        """What there is to open of a model: of a version of another one that other one, in its own dtype."""
        own = self.models[model]
        return {**self.models[self.kept[model].model], "dtype": own["dtype"]} if model in self.kept else own

    def own_weights(self, model: str) -> dict[str, Any]:
        """A model's description, but for what it computes in and its adapters: equal ones name equal first weights."""
        described = {**self.described(model), "dtype": "float32"}
        return {key: value for key, value in described.items() if key != "lora"}

    def is_base_of(self, model: str) -> str | None:
        """The model with adapters whose base this one is: its passes without adapters are this one's, in memory that
        is there already. None: it has weights of its own, or is trained itself."""
        if model in self.trainable or model in self.kept:
            return None
        own = self.own_weights(model)
        return next((other for other in self.bases if self.own_weights(other) == own), None)

    def stands_on(self, model: str) -> str | None:
        """The model with adapters whose base a model's passes go through, as itself, as a version of that one or as
        that base; None: they go through none."""
        owner = self.kept[model].model if model in self.kept else model
        return owner if owner in self.bases else self.is_base_of(model)

    def stage(self, stage_id: str) -> Stage:
        """Raises KeyError."""
        return self._by_id.get(stage_id) or _no_stage(stage_id)

    @cached_property
    def _by_id(self) -> dict[str, Stage]:
        return {stage.id: stage for stage in self.stages}

    def beginning_of(self, stage_id: str) -> Stage:
        """The stage whose prompts, and groups of completions, this one's are. Raises KeyError."""
        stage = self.stage(stage_id)
        while stage.operator.begins is None:
            stage = self.stage(stage.reads[0].partition(".")[0])
        return stage

    def engine_of(self, stage_id: str) -> str:
        """What computes a stage. Raises KeyError."""
        return self.stage(stage_id).engine or self.engine

    @property
    def engines(self) -> tuple[str, ...]:
        """Those that it names, its own first."""
        return tuple(dict.fromkeys(name for name in (self.engine, *(stage.engine for stage in self.stages)) if name))

    def needs(self, stage_id: str) -> frozenset[str]:
        """The words that a node must offer for a stage: those that it requires, and what its engine asks for. Raises
        KeyError."""
        engine = self.engine_of(stage_id)
        kind = ENGINES[engine]
        asked = {engine} if kind.is_optional else set()
        if self.reproducibility == EXACT and set(kind.exact_on) < set(DEVICES):
            asked |= set(kind.exact_on)
        return frozenset({*self.stage(stage_id).requires, *asked})

    @property
    def opens_files(self) -> bool:
        """Whether some engine of it opens the files that it names."""
        return any(ENGINES[name].opens_files for name in self.engines)

    def with_digests(self, digests: Mapping[str, str]) -> Self:
        """The same pipeline, bound to the contents of the files that it names."""
        return self.from_dict(self.to_dict() | {"digests": dict(digests)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)


def _text(tree: Mapping[str, Any]) -> bytes:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def _no_stage(stage_id: str) -> Stage:
    raise KeyError(f"no stage `{stage_id}`")
