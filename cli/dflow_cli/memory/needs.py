"""What a pipeline takes of a daemon's shared memory, of an engine's own, and of its GPU, in bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.grammar.engines import ENGINES
from dflow_protocols.pipeline.grammar.signatures import DTYPES, gradient_bytes
from dflow_protocols.ranges import FLOAT_BYTES

from .outline import Outline
from .rollouts import PROMPT, longest, said_at_once, step_bytes, steps_held, trained_groups

BYTES = dict(zip(DTYPES, (4, 2), strict=True))
ROLLING, SUMMING, APPLYING, LATE = 12, 20, 28, 16
"""Bytes a trained parameter, in shards: parameters and both moments; a block and the share of others' beside them; the
old state, the reduced gradient and the new state; a version more for a node that is late, and what leads from it."""
LIBRARIES = 400_000_000  # of an engine: PyTorch and transformers, as measured on a CPU
CUDA_CONTEXT = 600_000_000  # of a process on a GPU, with the kernels of PyTorch; an estimate
CPU_CACHE = 1 << 30  # keys and values of vLLM on a CPU, unless VLLM_CPU_KVCACHE_SPACE says otherwise
LOGITS = 64_000_000  # a chunk of logits, their softmax and both gradients
ROLLING_OUT, TRAINING, WAITING = "rolling out", "training", "waiting"
"""Phases of a GPU: models that one does not need give their memory back. What waits meanwhile waits on the host."""
VLLM_ASLEEP = 2_000_000_000  # of a GPU, that vLLM keeps while another engine has it: graphs, workspaces; an estimate
SHARED_ROW = 256  # tokens up to which completions of one prompt share a row, where texts are not in one line


@dataclass(frozen=True, slots=True)
class Need:
    """One line of the table. `why`: what the figure consists of. `phase`: when it is there; empty: always."""

    what: str
    nbytes: int
    why: str
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Needs:
    """`shards`: states of a step that follow one another, and what lies beside them (`more`). `engine`: of each slot,
    together, in its process; `device`: of each slot, together but for other phases, on its GPU (none where it computes
    on cores)."""

    shards: tuple[Need, ...]
    engine: tuple[Need, ...]
    device: tuple[Need, ...]
    opening: Need  # in the engine, before a model is proved and rounded: in place of what comes later
    trained: int
    kept: int = 0  # bytes in shards, beside these: of earlier versions, and of rollouts

    @property
    def most_shards(self) -> int:
        """Without which no step ends."""
        return APPLYING * self.trained + self.kept

    @property
    def most_engine(self) -> int:
        return max(sum(need.nbytes for need in self.engine), LIBRARIES + self.opening.nbytes)

    @property
    def most_device(self) -> int:
        """Beside vLLM asleep, where that is on the same GPU."""
        return max(
            sum(need.nbytes for need in self.device if need.phase in ("", now)) for now in (ROLLING_OUT, TRAINING)
        )


def needs_of(pipeline: Pipeline, outlines: Mapping[str, Outline], has_gpu: bool) -> Needs:
    """`outlines`: by model, of all that the pipeline has. `has_gpu`: slots own a GPU each."""
    trained = sum(trained_of(pipeline, outlines, model) for model in pipeline.trainable)
    sampled = sum(trained_of(pipeline, outlines, model) for model in pipeline.sampled)
    carried = pipeline.lag * FLOAT_BYTES * sampled
    several = pipeline.schedule.versions > pipeline.schedule.steps
    held = steps_held(pipeline)
    rollouts = held * step_bytes(pipeline)
    references = FLOAT_BYTES * sum(trained_of(pipeline, outlines, model) for model in pipeline.kept)
    kept = carried + references + several * ROLLING * trained + rollouts
    shards: tuple[Need, ...] = (
        Need("rolling out", ROLLING * trained, f"{ROLLING} bytes a trained parameter: it and two moments"),
        Need("summing", SUMMING * trained, f"{SUMMING}: a block's gradient and its share of the others' beside it"),
        Need("applying", APPLYING * trained, f"{APPLYING}: the old state, the gradient, the new state"),
        *[Need("later updates", ROLLING * trained, f"{ROLLING} more: the version that a step began with")][:several],
        Need("a late node", LATE * trained, f"{LATE} more, while another is a version behind"),
    )
    steps = "a step's" if held == 1 else f"of {held} steps, as {held - 1} are sampled ahead"
    shards += (Need("rollouts", rollouts, f"{steps}, if completions are as long as they may be, and all of them here"),)
    if carried:
        shards += (Need("lag", carried, f"{FLOAT_BYTES} a parameter that is sampled from, for each step behind"),)
    if references:
        names = ", ".join(f"`{model}`" for model in pipeline.kept)
        shards += (Need("earlier versions", references, f"{FLOAT_BYTES} a parameter of {names}"),)
    passes = [*_copies(pipeline, outlines, has_gpu), *_caches(pipeline, outlines, has_gpu)]
    passes += _activations(pipeline, outlines, has_gpu)
    waiting = [need for need in passes if need.phase == WAITING]
    passes = [need for need in passes if need.phase != WAITING]
    gradient = 4 * max((trained_of(pipeline, outlines, model) for model in pipeline.trainable), default=0)
    host = [Need("libraries", LIBRARIES, "PyTorch and transformers"), *_sums(pipeline, outlines, has_gpu)]
    largest = max((outlines[model].parameters for model in _opened(pipeline)), default=0)
    opening = Need("opening", BYTES["float32"] * largest, "float32, once; before, and not beside, the others")
    if not has_gpu:
        return Needs(shards, (*host, *passes), (), opening, trained, kept)
    context = Need("CUDA", CUDA_CONTEXT, "context and kernels, an estimate")
    summed = Need("gradient", gradient, "float32", TRAINING)
    return Needs(shards, (*host, *waiting), (context, summed, *passes), opening, trained, kept)


def trained_of(pipeline: Pipeline, outlines: Mapping[str, Outline], model: str) -> int:
    """Parameters of which a version consists: all, or those of adapters."""
    lora = pipeline.described(model).get("lora")
    outline = outlines[model]
    return outline.parameters if lora is None else outline.adapters(lora["rank"], lora.get("targets"))


def has_vllm(pipeline: Pipeline) -> bool:
    return any(_is_served(pipeline, stage) for stage in _stages(pipeline))


def _stages(pipeline: Pipeline) -> list[Stage]:
    """Those that run at some step."""
    return [stage for stage in pipeline.stages if stage.operator.evaluates or pipeline.schedule.runs(stage.id)]


def _is_served(pipeline: Pipeline, stage: Stage) -> bool:
    return ENGINES[pipeline.engine_of(stage.id)].samples_only and stage.operator.samples


def _opened(pipeline: Pipeline) -> set[str]:
    """Models that engines open in torch."""
    stages = [stage for stage in _stages(pipeline) if not _is_served(pipeline, stage)]
    return {str(stage.model) for stage in stages if stage.model is not None}


def _copies(pipeline: Pipeline, outlines: Mapping[str, Outline], has_gpu: bool) -> Iterator[Need]:
    """Weights that an engine has beside the shards, one for each model and dtype that its stages compute in."""
    wanted: dict[tuple[str, str], list[Stage]] = {}
    served: dict[str, str] = {}
    for stage in _stages(pipeline):
        if stage.model is None:
            continue
        dtype = pipeline.models[stage.model]["dtype"]
        if stage.operator.trains:
            dtype = stage.config.get("compute", "float32")
        if _is_served(pipeline, stage):
            served[stage.model] = dtype
            continue
        owner = pipeline.is_base_of(stage.model) or stage.model
        wanted.setdefault((owner, dtype), []).append(stage)
    for model, dtype in () if has_gpu else served.items():
        nbytes = BYTES[dtype] * outlines[model].parameters + CPU_CACHE
        yield Need(f"vLLM of `{model}`", nbytes, f"{dtype} weights, and 1 GiB of keys and values")
    for (model, dtype), stages in wanted.items():
        is_loaded = model in (*pipeline.trainable, *pipeline.kept) and not pipeline.described(model).get("lora")
        nbytes = BYTES[dtype] * outlines[model].parameters
        names = ", ".join(stage.id for stage in stages)
        if not has_gpu and is_loaded and dtype == "float32":
            yield Need(f"weights of `{model}`", 0, "mapped from its shards")
            continue
        phases = {TRAINING if stage.operator.trains else ROLLING_OUT for stage in stages}
        phase = phases.pop() if has_gpu and len(phases) == 1 else ""
        yield Need(f"weights of `{model}`", nbytes, f"{dtype}, for {names}", phase)
        if has_gpu and not is_loaded:
            yield Need(f"weights of `{model}`", nbytes, f"{dtype}; mapped, if its folder has them so", WAITING)


def _sums(pipeline: Pipeline, outlines: Mapping[str, Outline], has_gpu: bool) -> Iterator[Need]:
    """Gradients that wait for others while a block of two leaves is summed, of the stage where they take most. The one
    that passes add to is beside them: in the block's shards, or on the GPU. Shards of bfloat16 have no place for it."""
    found = []
    for stage in _stages(pipeline):
        if not stage.operator.trains:
            continue
        passes = _micro_batches(pipeline, stage, is_in_line=has_gpu or stage.config.get("compute") == "bfloat16")
        waiting = (
            (passes + 1) // 2
        ).bit_length()  # the other leaf's sum, and the depth of the tree over pairs of passes
        waiting += gradient_bytes(stage.config) < FLOAT_BYTES and not has_gpu
        why = f"float32, {waiting} that wait to be added to; about {passes} micro-batches a leaf of `{stage.id}`"
        nbytes = 4 * waiting * trained_of(pipeline, outlines, str(stage.model))
        found.append(Need("gradients", nbytes, why + ("; on the GPU, if it has room" if has_gpu else "")))
    if found:
        yield max(found, key=lambda need: need.nbytes)


def _micro_batches(pipeline: Pipeline, stage: Stage, is_in_line: bool) -> int:
    """Of a leaf, if prompts are as long as PROMPT and completions as long as they may be. A demonstration counts as a
    prompt: it is as long as the data has it."""
    config, group, most, prompts = stage.config, 1, 0, 0
    if "batch" in config:
        prompts = config["batch"]
    else:
        maker = pipeline.stage(next(read.partition(".")[0] for read in stage.reads if read.endswith(".rollout")))
        sampled = pipeline.beginning_of(maker.id)
        prompts, group, most = trained_groups(pipeline, sampled), sampled.width, longest(pipeline, maker)
    sharing = 1 if is_in_line else max(1, (SHARED_ROW - PROMPT) // max(1, most))
    tokens = prompts * (-(-group // sharing) * PROMPT + group * most)
    of_a_leaf = -(-tokens // stage.config["leaves"])
    return int(min(-(-of_a_leaf // config["micro_batch_tokens"]), -(-prompts * group // config["leaves"])))


def _caches(pipeline: Pipeline, outlines: Mapping[str, Outline], has_gpu: bool) -> Iterator[Need]:
    """Keys and values while a partition is sampled, of the stage whose partitions take most; vLLM's are its own."""
    found = []
    for stage in _stages(pipeline):
        is_sampled = stage.operator.samples and not _is_served(pipeline, stage)
        widths = outlines[str(stage.model)].widths if is_sampled else None
        if widths is None:
            continue
        texts, tokens = said_at_once(pipeline, stage)
        nbytes = 2 * widths.layers * widths.keys * BYTES[pipeline.models[str(stage.model)]["dtype"]] * texts * tokens
        why = f"about; {texts} texts of {tokens} tokens, a partition of `{stage.id}`"
        found.append(Need("keys and values", nbytes, why, ROLLING_OUT if has_gpu else ""))
    if found:
        yield max(found, key=lambda need: need.nbytes)


def _activations(pipeline: Pipeline, outlines: Mapping[str, Outline], has_gpu: bool) -> Iterator[Need]:
    """Of the stage whose micro-batch takes most; none where config.json does not tell the widths."""
    found = []
    for stage in _stages(pipeline):
        widths = outlines[str(stage.model)].widths if stage.operator.trains else None
        if widths is None:
            continue
        tokens, each = stage.config["micro_batch_tokens"], BYTES[stage.config.get("compute", "float32")]
        again = stage.config.get("gradient_checkpointing")
        again = has_gpu if again is None else again
        kept = widths.layers * widths.hidden + widths.activations if again else widths.layers * widths.activations
        why = f"about; {tokens} tokens a micro-batch of `{stage.id}`, {'made again by layer' if again else 'all kept'}"
        found.append(Need("activations", LOGITS + each * kept * tokens, why, TRAINING if has_gpu else ""))
    if found:
        yield max(found, key=lambda need: need.nbytes)
