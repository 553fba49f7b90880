"""What a process really loads, asked of a fresh one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "transformers", "safetensors", "reasoning_gym", "matplotlib"}


def loaded_by(module: str) -> set[str]:
    """Top-level packages in memory after `module` was imported."""
    ask = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120)
    return {name.partition(".")[0] for name in json.loads(answer.stdout)}


@pytest.mark.parametrize("module", ["dflowd.daemon", "dflowd.__main__", "dflow_cli.app"])
def test_neither_daemon_nor_command_line_loads_what_touches_models(module: str) -> None:
    """Both must answer at once; what a model needs takes seconds to load and hundreds of megabytes."""
    assert loaded_by(module) & HEAVY == set()


def test_what_works_on_shards_alone_loads_no_framework() -> None:
    """A host's own slot lies beside those of the GPUs: it must cost neither seconds at its start nor their memory."""
    assert loaded_by("dflowd.engines.host_engine") & HEAVY == {"numpy"}
    assert loaded_by("dflowd.child.process") & HEAVY == set()


def test_the_protocols_open_no_socket_and_start_no_loop() -> None:
    """A user of the protocols brings the loop; theirs would be a second one."""
    assert loaded_by("dflow_protocols.node") & {"asyncio", "zmq", "uvloop", "pydantic", "logging"} == set()
