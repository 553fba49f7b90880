"""Pretended engines: whose bytes are alike."""

from __future__ import annotations

from random import Random

from dflow_protocols.names import ShardId, ShardRef
from dflow_protocols.simulator.model.provenance import Ledger
from dflow_protocols.simulator.model.work import NOISY, PURE, Engines
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.work import ChainWork, InitWork

WORK = ChainWork(0, ("roll", "score", "adv"), 0, (("params:policy", ShardRef(ShardId("c" * 64), 100)),))


def engines(noise: frozenset[type] = PURE, classes: int = 1) -> Engines:
    return Engines(Ledger(), two_steps(), noise, Random(1), classes)


def test_hosts_of_one_class_make_the_same_bytes_and_those_of_another_do_not() -> None:
    """Another build, or another kind of device: runs end well, and who computed what shows in the weights."""
    made = engines(classes=2)
    assert not made.is_pure
    assert made.run(WORK, numerics=1) == made.run(WORK, numerics=1)
    assert made.run(WORK, numerics=1) != made.run(WORK, numerics=0)


def test_all_classes_begin_with_the_same_weights() -> None:
    """Version 0 is a function of the spec."""
    made = engines(classes=2)
    assert made.run(InitWork(), numerics=1) == made.run(InitWork(), numerics=0)


def test_a_noisy_engine_never_agrees_with_itself() -> None:
    made = engines(NOISY)
    assert made.run(WORK) != made.run(WORK)
    assert engines().is_pure
