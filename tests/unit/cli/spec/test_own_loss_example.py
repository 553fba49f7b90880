"""The example of a loss of one's own: what people copy can run."""

from __future__ import annotations

from dflow_cli.spec.specfile import load
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
