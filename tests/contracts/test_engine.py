"""What every engine promises, asked of each one alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from dflow_protocols.names import CHUNK_BYTES, RunId, ShardId, ShardRef, VersionId
from dflow_protocols.pipeline import Pipeline, plan
from dflow_protocols.pipeline.grammar.engines import ENGINES as ENGINE_KINDS
from dflow_protocols.pipeline.grammar.engines import EVERYTHING
from dflow_protocols.ranges import RANGE_BYTES, State, shards_of, total_bytes
from dflow_protocols.wire.steps import Header
from dflow_protocols.work import BlockWork, ChainWork, Done, Failed, InitWork, LoadWork, SaveWork, Work
from dflowd.engines.contract import Engine
from dflowd.engines.registry import open_engine
from dflowd.jobs.failures import GivenUp
from tests.support.alone import Alone, MemoryShards

ROOT = Path(__file__).parents[2]
NAMES = tuple(sorted(name for name, kind in ENGINE_KINDS.items() if kind.does == EVERYTHING))
CHECKPOINTED = RunId("a" * 32)
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
}

HELD_OUT = {"data": "words.held_out"}
QUICK = {"generate_s": 0, "gradient_s": 0, "apply_s": 0, "evaluate_s": 0, "parameters": 300_000}


def tiny_spec(engine: str, **more: Any) -> dict[str, Any]:
    """A warm-up step and two of GRPO. Temperature 3 makes rewards differ within groups from the start."""
    adamw = {"adamw": {"lr": 0.003}}
    return {
        "name": "tiny",
        "steps": 3,
        "engine": engine,
        "emulated": QUICK if engine == "emulated" else {},
        "models": {"policy": {"init": {"config": "tiny.json", "tokenizer": "tokenizer"}}},
        "data": {"words": {"jsonl": "words.jsonl", "held_out": {"share": 0.6, "count": 6}}},
        "stages": [
            {
                "id": "warm",
                "op": "sft",
                "model": "policy",
                "when": "step < 1",
                "config": {"data": "words", "demos": 8, "batch": 8, "partitions": 2, "leaves": 4, "optimizer": adamw},
            },
            {
                "id": "roll",
                "op": "generate",
                "model": "policy",
                "when": "step >= 1",
                "config": {"data": "words", "prompts": 6, "group": 4, "partitions": 3, "max_tokens": 4},
            },
            {"id": "score", "op": "reward", "config": {"function": "scores.py:vowels"}},
            {"id": "adv", "op": "advantage", "config": {"drop_flat_groups": True}},
            {"id": "learn", "op": "train", "model": "policy", "config": {"leaves": 4, "optimizer": adamw}},
            {
                "id": "held",
                "op": "evaluate",
                "model": "policy",
                "when": "step >= 1",
                "config": {"data": "words.held_out"},
            },
        ],
        **more,
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path)


def write_base(folder: Path) -> Path:
    (folder / "tiny.json").write_text(json.dumps(TINY))
    (folder / "tokenizer").symlink_to(ROOT / "examples/spell_tokenizer")  # by one name in every checkout: it is hashed
    words = ["tea", "bean", "oak", "corn", "plum", "fig", "rye", "kiwi", "pear", "date", "lime", "nut"]
    lines = (json.dumps({"prompt": word, "answer": word[::-1]}) for word in words)
    (folder / "words.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "scores.py").write_text(
        "def vowels(completion, answer, *, prompt, entry):\n    return sum(c in 'aeiou' for c in completion) / 4\n\n\n"
        "def broken(completion, answer, *, prompt, entry):\n    return 1 / 0\n"
    )
    return folder


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return open_engine(request.param)


def alone(engine: Engine, base: Path, **more: Any) -> Alone:
    pipeline = Pipeline.from_dict(tiny_spec("torch" if "torch" in engine.capabilities else "emulated", **more))
    return Alone(engine, pipeline, base, base / "checkpoints")


def whole_run(runner: Alone) -> State:
    return runner.run(runner.init(), range(runner.pipeline.schedule.steps + 1))


def chain_work(runner: Alone, step: int, stage: str, partition: int, state: State) -> ChainWork:
    chain = next(chain for chain in plan(runner.pipeline, step).chains if stage in chain.stages)
    return ChainWork(step, chain.stages, partition, state)


def test_a_chain_gives_the_same_records_twice_and_in_any_order(engine: Engine, base: Path) -> None:
    """A task that is redone elsewhere must give the same shards, whatever that engine did before."""
    runner = alone(engine, base)
    state = runner.init()
    works = [chain_work(runner, 1, "roll", partition, state) for partition in range(3)]
    forwards = [facts(runner.done(work)) for work in works]
    backwards = [facts(runner.done(work)) for work in reversed(works)]
    assert forwards == backwards[::-1]
    assert len({str(fact) for fact in forwards}) == 3


def facts(done: Done) -> list[Any]:
    return [(made.stage, made.outputs, made.metrics, made.groups) for made in done.made]


@pytest.mark.parametrize("done", [1, 2])
def test_a_chain_goes_on_from_what_was_done_before(engine: Engine, base: Path, done: int) -> None:
    """Stages of a dead node whose first outputs survived are not run again, and end in the same records, in an engine
    that has nothing open."""
    runner = alone(engine, base)
    state = runner.init()
    whole = runner.done(chain_work(runner, 1, "roll", 0, state))
    known = tuple((f"{made.stage}.{name}", ref) for made in whole.made[:done] for name, ref in made.outputs)
    fresh = replace(runner, engine=open_engine(engine.capabilities[0]))
    rest = ChainWork(1, ("roll", "score", "adv")[done:], 0, state, known)
    assert facts(fresh.done(rest)) == facts(whole)[done:]


@pytest.mark.parametrize("name", ENGINE_KINDS)
def test_an_engine_does_what_the_format_says_of_it(name: str) -> None:
    """So a spec that gives a stage to an engine that cannot do it is refused before it is submitted."""
    assert open_engine(name).does == ENGINE_KINDS[name].does


@pytest.mark.parametrize(("blocks", "sums"), [(2, False), (4, False), (1, True), (2, True)])
def test_bits_do_not_depend_on_how_leaves_are_gathered(engine: Engine, base: Path, blocks: int, sums: bool) -> None:
    """Any cover by aligned blocks finishes the same tree, so the weights are the same with any number of nodes, and of
    slots of a node."""
    single = whole_run(alone(engine, base))
    gathered = alone(engine, base)
    gathered.blocks, gathered.sums = blocks, sums
    assert whole_run(gathered) == single


@pytest.mark.parametrize("name", NAMES)
def test_another_process_makes_the_same_weights(name: str, base: Path) -> None:
    """Nothing of one process (memory, hash seed, start order) may show in the bits."""
    code = f"""
import sys
from pathlib import Path
from dflowd.child.process import ENVIRONMENT
import os
os.environ.update(ENVIRONMENT)
from dflowd.engines.registry import open_engine
from tests.contracts.test_engine import alone, whole_run
print(whole_run(alone(open_engine({name!r}), Path(sys.argv[1]))))
"""
    command = [sys.executable, "-c", code, str(base)]
    theirs = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    assert "params:policy" in theirs
    assert theirs == str(whole_run(alone(open_engine(name), base)))


def test_a_step_changes_the_weights_and_its_optimizer_lasts_as_long_as_its_stage(engine: Engine, base: Path) -> None:
    """Moments are state of the training stage: made at its first step, dropped after its last."""
    runner = alone(engine, base)
    states = [runner.init()]
    for step in range(3):
        states.append(runner.step(step, states[-1]))
    names = [[name for name, _ in state] for state in states]
    assert names == [["params:policy"], ["params:policy"], ["optimizer:learn", "params:policy"], ["params:policy"]]
    assert len({dict(state)["params:policy"] for state in states}) == 4
    optimizer, params = (ref for _, ref in states[2])
    assert optimizer.nbytes == 2 * params.nbytes


LONGER = {"hidden_size": 256, "intermediate_size": 1024}  # 1.1 million parameters: five shards of a MiB
CUT_STEPS = range(3)  # so that the state has moments at its end


@pytest.fixture
def long_runner(engine: Engine, base: Path) -> Alone:
    """A model that lies in five shards a role, though a toy."""
    (base / "tiny.json").write_text(json.dumps(TINY | LONGER))
    profile = {} if "torch" in engine.capabilities else {"emulated": QUICK | {"parameters": 1_100_000}}
    runner = alone(engine, base, steps=4, **profile)
    runner.range_bytes = CHUNK_BYTES
    return runner


def test_a_state_in_several_shards_is_the_same_vector(long_runner: Alone) -> None:
    """Where parameters are cut is bookkeeping: every engine sums, applies, trims and samples as if they were not."""
    runner = long_runner
    state = runner.run(runner.init(), CUT_STEPS)
    params, moments = (shards_of(state, role) for role in ("params:policy", "optimizer:learn"))
    assert len(params) == len(moments) == 5
    assert [ref.nbytes for ref in moments] == [2 * ref.nbytes for ref in params]
    if "torch" not in runner.engine.capabilities:
        return  # its pretended gradients are a function of what they are read from
    whole = replace(runner, range_bytes=RANGE_BYTES, shards=MemoryShards())
    (_, uncut_moments), (_, uncut) = whole.run(whole.init(), CUT_STEPS)
    assert bytes(runner.shards.read(*params)) == bytes(whole.shards.read(uncut))
    both = [(bytes(runner.shards.read(ref)), ref.nbytes // 2) for ref in moments]
    first, second = b"".join(data[:half] for data, half in both), b"".join(data[half:] for data, half in both)
    assert first + second == bytes(whole.shards.read(uncut_moments))


def test_a_checkpoint_of_several_shards_is_read_back_to_the_same(long_runner: Alone) -> None:
    """Each in its order, whichever files they lie in; bytes of a model that is saved as it is lie on the disk once."""
    runner = long_runner
    state = runner.run(runner.init(), range(2))
    folder, header = saved(runner, state, 2)
    assert len(list(folder.glob("optimizer-learn-0000?-of-00005.f32"))) == 5
    on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.suffix in (".f32", ".safetensors"))
    assert on_disk < 1.1 * total_bytes(ref for _, ref in state)
    kept, runner.shards.shards = runner.shards.shards, {}
    assert runner.done(LoadWork(CHECKPOINTED, header)).made[0].outputs == state
    assert all(runner.shards.shards[ref.id] == kept[ref.id] for _, ref in state)


def test_metrics_tell_what_was_sampled_and_trained(engine: Engine, base: Path) -> None:
    """Curves are made of these sums; they must be there at every step of their kind."""
    seen: dict[int, dict[str, float]] = {}
    runner = alone(engine, base)
    runner.log = lambda step, metrics: seen.update({step: metrics})
    whole_run(runner)
    assert seen[1]["samples"] == 24
    assert {"reward_mean", "completion_length_mean", "frac_groups_zero_std", "accuracy", "grad_norm"} <= seen[1].keys()
    assert seen[3]["evaluated"] > 0
    assert "samples" not in seen[3]


def saved(runner: Alone, state: State, step: int) -> tuple[Path, Header]:
    """The folder that a save of these weights gives, and the version that they are."""
    header = Header(VersionId("c" * 64), step, 8 * step, "d" * 64, state, (("held@1/correct", 3.0),))
    return Path(runner.done(SaveWork(CHECKPOINTED, header)).detail), header


def test_a_checkpoint_is_read_back_to_the_same_shards(engine: Engine, base: Path) -> None:
    """What goes on from it must be what was saved, optimizer and all; nothing half-written lies beside it."""
    runner = alone(engine, base)
    state = runner.run(runner.init(), range(2))
    assert any(name.startswith("optimizer:") for name, _ in state)
    (runner.folder / ".step-000001.4194305").mkdir(parents=True)  # an engine was killed over it: no pid is as high
    folder, header = saved(runner, state, 2)
    assert saved(runner, state, 2)[0] == folder
    assert [path.name for path in runner.folder.iterdir()] == ["step-000002"]
    kept, runner.shards.shards = runner.shards.shards, {}
    assert runner.done(LoadWork(CHECKPOINTED, header)).made[0].outputs == state
    assert all(runner.shards.shards[ref.id] == kept[ref.id] for _, ref in state)
    on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.suffix in (".f32", ".safetensors"))
    assert on_disk < 1.1 * sum(ref.nbytes for _, ref in state) + 4096


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def weights_file(folder: Path) -> Path:
    return next(path for path in sorted(folder.iterdir()) if path.name in ("params-policy.f32", "model.safetensors"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte of the weights": lambda folder: flip(weights_file(folder), -9),
    "a byte of the optimizer": lambda folder: flip(next(folder.glob("optimizer-*")), 100),
    "a truncated file": lambda folder: os.truncate(next(folder.glob("optimizer-*")), 5000),
    "a missing file": lambda folder: next(folder.glob("optimizer-*")).unlink(),
    "a changed fact": lambda folder: (folder / "dflow.json").write_text(
        (folder / "dflow.json").read_text().replace("3.0", "4.0")
    ),
    "a torn manifest": lambda folder: os.truncate(folder / "dflow.json", 200),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(engine: Engine, base: Path, damage: str) -> None:
    """Going on from other weights than were saved would be silent and final; the next older one is taken instead."""
    runner = alone(engine, base)
    folder, header = saved(runner, runner.run(runner.init(), range(2)), 2)
    DAMAGES[damage](folder)
    failed = runner.perform(LoadWork(CHECKPOINTED, header))
    assert isinstance(failed, Failed)
    assert failed.kind == "damaged"
    assert "step-000002" in failed.error


def test_a_checkpoint_of_another_run_or_version_is_refused(engine: Engine, base: Path) -> None:
    """A folder that was copied to the wrong place is whole, and wrong."""
    runner = alone(engine, base)
    _, header = saved(runner, runner.init(), 2)
    for work in (LoadWork(RunId("b" * 32), header), LoadWork(CHECKPOINTED, replace(header, samples=1))):
        failed = runner.perform(work)
        assert isinstance(failed, Failed)
        assert failed.kind == "damaged"


def test_a_saved_model_opens_with_the_weights_of_its_version(base: Path) -> None:
    """The checkpoint is for others' tools: parameters, config and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    runner = alone(open_engine("torch"), base)
    state = runner.run(runner.init(), range(1))
    folder, _ = saved(runner, state, 1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    named = sorted(model.named_parameters(), key=lambda item: item[0])
    flat = torch.cat([parameter.detach().reshape(-1) for _, parameter in named])
    assert flat.numpy().tobytes() == bytes(runner.shards.read(dict(state)["params:policy"]))
    assert AutoTokenizer.from_pretrained(folder).decode([4, 5]) == "ab"


MIXTURE = {
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
SAVED_OTHERWISE: dict[str, dict[str, object]] = {
    "mixtral": {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], **MIXTURE},
    "qwen3_moe": {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 16, **MIXTURE},
    "gpt_neox": {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]},  # other names in its file
}


@pytest.mark.parametrize("model", [*SAVED_OTHERWISE, "several files"])
def test_a_model_whose_file_is_not_its_parameters_is_saved_resumed_and_opened(
    base: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers fuses the experts of a mixture in memory and writes each for itself, renames others, and spreads
    large ones over files: the run's own bytes lie beside, and the model opens with the weights of its version."""
    from transformers import AutoModelForCausalLM, PreTrainedModel

    (base / "tiny.json").write_text(json.dumps(TINY | SAVED_OTHERWISE.get(model, {})))
    if model == "several files":
        spread = partialmethod(PreTrainedModel.save_pretrained, max_shard_size="20KB")
        monkeypatch.setattr(PreTrainedModel, "save_pretrained", spread)
    runner = alone(open_engine("torch"), base)
    state = runner.run(runner.init(), range(2))
    folder, header = saved(runner, state, 2)
    assert (folder / "params-policy.f32").exists()
    opened = sorted(AutoModelForCausalLM.from_pretrained(folder).named_parameters(), key=lambda item: item[0])
    flat = b"".join(parameter.detach().numpy().tobytes() for _, parameter in opened)
    assert flat == bytes(runner.shards.read(dict(state)["params:policy"]))
    kept, runner.shards.shards = runner.shards.shards, {}
    assert runner.done(LoadWork(CHECKPOINTED, header)).made[0].outputs == state
    assert all(runner.shards.shards[ref.id] == kept[ref.id] for _, ref in state)
    runner.step(2, state)


def test_a_missing_input_is_named_as_lost(engine: Engine, base: Path) -> None:
    """The node then makes that shard again, instead of blaming the engine."""
    runner = alone(engine, base)
    gone = ShardRef(ShardId("ab" * 32), 64)
    failed = runner.perform(BlockWork(0, "warm", 0, 1, (), ((0, "warm.batch", gone),), (("params:policy", gone),)))
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.blame) == ("lost", gone.id)


def test_no_room_is_told_apart_from_a_broken_engine(engine: Engine, base: Path) -> None:
    """A full store is waited for, not counted as a failure of the task."""
    runner = alone(engine, base)
    runner.shards = MemoryShards(limit_bytes=100)
    failed = runner.perform(InitWork())
    assert isinstance(failed, Failed)
    assert failed.kind == "full"


def test_a_call_given_up_ends_early(engine: Engine, base: Path) -> None:
    """Work that nobody waits for must not hold the slot."""
    slow = {"emulated": {"generate_s": 600}} if "emulated" in engine.capabilities else {}
    runner = alone(engine, base, **slow)
    state = runner.init()

    def give_up() -> None:
        raise GivenUp

    runner.progress = give_up
    assert isinstance(runner.perform(chain_work(runner, 1, "roll", 0, state)), Failed)


def test_every_kind_of_call_tells_its_progress(engine: Engine, base: Path) -> None:
    """One that tells none for as long as `engine.stall_s` is killed as hung, however well it was doing."""
    runner = alone(engine, base)
    runner.sums = True
    told: Counter[str] = Counter()
    perform = runner.perform

    def counting(work: Work) -> Done | Failed:
        kind = "/".join(work.stages) if isinstance(work, ChainWork) else type(work).__name__
        told[kind] += 0
        runner.progress = lambda: told.update([kind])
        return perform(work)

    runner.perform = counting  # type: ignore[method-assign]
    state = whole_run(runner)
    _, header = saved(runner, state, 3)
    runner.done(LoadWork(CHECKPOINTED, header))
    kinds = {"InitWork", "BlockWork", "SumWork", "SliceWork", "ApplyWork", "SaveWork", "LoadWork"}
    assert {*kinds, "warm", "roll/score/adv", "held"} <= told.keys()
    emulated = {"warm", "roll/score/adv", "held", "BlockWork"} if "emulated" in engine.capabilities else set()
    assert [kind for kind, count in told.items() if not count and kind not in emulated] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec: spec["stages"][2]["config"].update(function="scores.py:broken"), "ZeroDivisionError"),
        (lambda spec: spec["stages"][2]["config"].update(function="scores.py:absent"), "no function `absent`"),
        (lambda spec: spec["data"]["words"].update(jsonl="nowhere.jsonl"), "nowhere.jsonl"),
        (lambda spec: spec["models"]["policy"]["init"].update(config="nowhere.json"), "models.policy"),
    ],
    ids=["raises", "absent", "data", "model"],
)
def test_what_the_user_broke_is_the_users(base: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    """Such a failure would repeat on every node, so it must not be retried as an engine's."""
    spec = tiny_spec("torch")
    change(spec)
    runner = Alone(open_engine("torch"), Pipeline.from_dict(spec), base, base / "checkpoints")
    state = () if words == "models.policy" else first_state(runner, base)
    failed = runner.perform(chain_work(runner, 1, "roll", 0, state))
    assert isinstance(failed, Failed)
    assert failed.kind == "user"
    assert words in failed.error
    assert "\n" not in failed.error


def first_state(runner: Alone, base: Path) -> State:
    """Weights made by an unbroken spec, put where the runner finds them."""
    sound = alone(runner.engine, base)
    state = sound.init()
    runner.shards = sound.shards
    return state


def test_a_step_trains_on_what_a_filter_keeps(engine: Engine, base: Path) -> None:
    """A curriculum: groups that are too easy or too hard are sampled, and teach nothing."""
    stages = tiny_spec("")["stages"]
    config = {"function": "dflowd.operators.filter:pass_rate", "args": {"low": 0.01, "high": 0.2}}
    stages.insert(3, {"id": "keep", "op": "filter", "config": config})
    seen: dict[int, dict[str, float]] = {}
    runner = alone(engine, base, stages=stages)
    runner.log = lambda step, metrics: seen.update({step: metrics})
    runner.run(runner.init(), range(3))
    for step in (1, 2):
        assert 0 < seen[step]["kept_frac"] < 1
        assert 0 < seen[step]["trained_samples"] <= 24 * seen[step]["kept_frac"]
