"""One token more of all that is being said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dflowd.models.served.vllm_server import Server


class Engine:
    """vLLM's, which asks for its own code to be compiled."""

    def __init__(self) -> None:
        self.compiled: list[bool] = []

    def step(self) -> list[Any]:
        self.compiled.append(is_compiled())
        return []


def is_compiled() -> bool:
    """Whether what is marked for it is compiled now."""
    compiled: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append("once")
        return graph.forward

    torch._dynamo.reset()
    torch.compile(lambda x: x + 1, backend=backend)(torch.zeros(1))
    return bool(compiled)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_what_a_run_compiles_beside_a_sampler_on_a_cpu_is_compiled(on_cpu: bool) -> None:
    """Only what vLLM does in a step is not: compiling that takes a compiler, and longer than all steps of a test."""
    engine, served = Engine(), object.__new__(Server)
    made: Any = served
    made._llm, made._on_cpu = engine, on_cpu
    served.step()
    assert engine.compiled == [not on_cpu]
    assert is_compiled()
