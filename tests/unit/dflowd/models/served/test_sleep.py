"""A sampler gives a GPU back while another engine has it, and never samples from what it then held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dflowd.models.served.vllm_server import Server


class Pretended:
    """vLLM's engine, by what was asked of it, in order."""

    def __init__(self, is_broken: bool = False) -> None:
        self.asked: list[Any] = []
        self.is_broken = is_broken

    def sleep(self, level: int) -> None:
        self.asked.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self.asked.append(("wake", *tags))

    def reset_prefix_cache(self) -> bool:
        self.asked.append("forget")
        return True

    def collective_rpc(self, change: Callable[[Any], Any]) -> list[list[str]]:
        if self.is_broken:
            raise torch.OutOfMemoryError("no room for the weights")
        self.asked.append("weights")
        return [[]]


def server(llm: Pretended, on_cpu: bool = False) -> Server:
    made: Any = object.__new__(Server)
    made._llm, made._on_cpu, made._is_asleep, made._version = llm, on_cpu, False, ()
    return made  # type: ignore[no-any-return]


def test_weights_are_loaded_anew_behind_a_sleep_before_the_cache_takes_its_room() -> None:
    """Those of the same version, too: the second level drops them, and what lies there then is anything."""
    llm = Pretended()
    served = server(llm)
    served.serve(("one",), lambda: ())
    served.serve(("one",), lambda: ())
    assert llm.asked == ["weights", "forget"]
    llm.asked.clear()
    served.sleep()
    served.sleep()
    served.serve(("one",), lambda: ())
    assert llm.asked == [("sleep", 2), ("wake", "weights"), "weights", ("wake", "kv_cache"), "forget"]
    llm.asked.clear()
    served.serve(("two",), lambda: ())
    assert llm.asked == ["weights", "forget"]


def test_what_failed_to_wake_is_not_taken_for_awake() -> None:
    """A device without room then may have some for the next call."""
    llm = Pretended()
    served = server(llm)
    served.sleep()
    llm.is_broken = True
    with pytest.raises(torch.OutOfMemoryError):
        served.serve(("one",), lambda: ())
    llm.is_broken = False
    served.serve(("one",), lambda: ())
    assert llm.asked[-3:] == ["weights", ("wake", "kv_cache"), "forget"]


def test_on_the_host_there_is_nothing_to_give_back() -> None:
    """vLLM's sleep is of GPUs; a sampler on cores goes on with the weights that it has."""
    llm = Pretended()
    served = server(llm, on_cpu=True)
    served.serve(("one",), lambda: ())
    served.sleep()
    served.serve(("one",), lambda: ())
    assert llm.asked == ["weights", "forget"]
