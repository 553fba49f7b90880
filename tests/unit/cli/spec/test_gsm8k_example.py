"""The example of word problems: its spec with each overlay is one that can run."""

from __future__ import annotations

import pytest

from dflow_cli.spec.layers import lay_all
from dflow_cli.spec.spectree import read_yaml, strip
from dflow_protocols.pipeline import Pipeline
from tests.support.repository import EXAMPLES

FOLDER = EXAMPLES / "gsm8k"


@pytest.mark.parametrize("overlay", [None, "lora_7b.yaml", "small.yaml"])
def test_the_spec_is_one_that_can_run(overlay: str | None) -> None:
    tree = read_yaml((FOLDER / "qwen.yaml").read_text(), "qwen.yaml")
    overlays = [] if overlay is None else [read_yaml((FOLDER / overlay).read_text(), overlay)]
    pipeline = Pipeline.from_dict(strip(lay_all(tree, overlays, [])))
    assert pipeline.engine_of("roll") == "vllm"
    assert pipeline.reproducibility == "replay"
    assert (pipeline.bases == ("policy",)) == (overlay == "lora_7b.yaml")
