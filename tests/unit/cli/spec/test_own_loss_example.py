"""The example of a loss of one's own: what people copy can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.spec.filedigest import digest_files
from dflow_cli.spec.specfile import SpecFileError, load
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.files import named_files
from tests.support.repository import ROOT

EXAMPLES = ROOT / "examples"


def test_the_overlay_with_a_loss_of_its_own_names_its_file() -> None:
    """Laid over the example, with no key left of the loss that was there."""
    loaded = load(EXAMPLES / "spell_backward.yaml", [EXAMPLES / "algorithms" / "own_loss" / "overlay.yaml"])
    assert not loaded.warnings
    loss = loaded.pipeline.stage("learn").config["loss"]
    assert dict(loss) == {
        "kind": "algorithms/own_loss/soft_clip.py:loss",
        "divisor": "tokens",
        "args": {"sharpness": 1.0},
        "entropy": False,
    }
    assert loss["kind"] in {named.name for named in named_files(loaded.pipeline)}


@pytest.mark.parametrize(
    ("args", "what"),
    [("{sharpnes: 1.0}", "does not take `sharpnes`, which `args` hold"), ("{}", None), ("{sharpness: 2.0}", None)],
)
def test_a_loss_that_cannot_be_called_is_told_before_the_run(args: str, what: str | None) -> None:
    """Else the first step is sampled and scored, and then the run ends."""
    overlay, setting = EXAMPLES / "algorithms" / "own_loss" / "overlay.yaml", f"stages.learn.config.loss.args={args}"
    if what is None:
        assert load(EXAMPLES / "spell_backward.yaml", [overlay], [setting])
        return
    with pytest.raises(SpecFileError) as caught:
        load(EXAMPLES / "spell_backward.yaml", [overlay], [setting])
    (problem,) = caught.value.problems
    assert (problem.what, problem.hint) == (f"soft_clip.py:11: `loss` {what}", "did you mean `sharpness`?")


def test_a_loss_that_is_told_less_than_it_asks_for_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def loss(tokens, weight, *, power=2): ...\n")
    function = "mine.py:loss"
    spec = load(EXAMPLES / "spell_backward.yaml", [EXAMPLES / "algorithms" / "own_loss" / "overlay.yaml"]).pipeline
    told = spec.to_dict()
    next(each for each in told["stages"] if each["id"] == "learn")["config"]["loss"] |= {"kind": function, "args": {}}
    _, found = digest_files(Pipeline.from_dict(told), tmp_path)
    assert "mine.py:1: `loss` asks for `weight`, which `args` lack" in [problem.what for problem in found.problems]
