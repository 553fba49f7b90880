"""The example of word problems: its spec with each overlay is one that can run, and its reward knows a right answer."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from dflow_cli.spec.spectree import merge, read_yaml, strip
from dflow_protocols.pipeline import Pipeline
from tests.support.repository import EXAMPLES

FOLDER = EXAMPLES / "gsm8k"
DERIVED = "Natalia sold 48/2 = <<48/2=24>>24 clips in May, 72 altogether.\n#### 72"


@pytest.fixture(scope="module")
def answers() -> Any:
    spec = importlib.util.spec_from_file_location("answers", FOLDER / "answers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "said", ["so it is \\boxed{72}.", "The answer is 72", "$72", "48 + 24 = 72.0", "x" * 9000 + " 72"]
)
def test_a_right_answer_counts_however_it_is_written(answers: Any, said: str) -> None:
    assert answers.score(said, DERIVED) == 1.0
    assert answers.score(said, "72") == 1.0


@pytest.mark.parametrize(
    "said", ["so it is \\boxed{71}.", "", "no idea", "72, or else \\boxed{24}", "\\boxed{", "7" * 5000]
)
def test_another_answer_does_not(answers: Any, said: str) -> None:
    assert answers.score(said, DERIVED) == 0.0


def test_thousands_may_have_commas(answers: Any) -> None:
    assert answers.score("\\boxed{1200}", "that is\n#### 1,200") == 1.0


@pytest.mark.parametrize("overlay", [None, "lora_7b.yaml", "small.yaml"])
def test_the_spec_is_one_that_can_run(overlay: str | None) -> None:
    tree = read_yaml((FOLDER / "qwen.yaml").read_text(), "qwen.yaml")
    if overlay is not None:
        tree = merge(tree, read_yaml((FOLDER / overlay).read_text(), overlay))
    pipeline = Pipeline.from_dict(strip(tree))
    assert pipeline.engine_of("roll") == "vllm"
    assert pipeline.reproducibility == "replay"
    assert (pipeline.bases == ("policy",)) == (overlay == "lora_7b.yaml")
