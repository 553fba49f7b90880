"""The example of an advantage of one's own: what people copy can run, and what cannot is told before a run."""

from __future__ import annotations

import pytest

from dflow_cli.spec.specfile import SpecFileError, load
from dflow_protocols.pipeline.files import named_files
from tests.support.repository import EXAMPLES

SPEC, OVERLAY = EXAMPLES / "spell_backward.yaml", EXAMPLES / "algorithms" / "own_advantage" / "overlay.yaml"


def test_the_overlay_with_an_advantage_of_its_own_names_its_file() -> None:
    """Laid over the example, which says `drop_flat_groups`: that goes with any method."""
    loaded = load(SPEC, [OVERLAY])
    assert not loaded.warnings
    config = loaded.pipeline.stage("adv").config
    assert (config["args"], config["drop_flat_groups"]) == ({"power": 1.0}, True)
    assert config["method"] in {named.name for named in named_files(loaded.pipeline)}


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        (
            "args={strength: 1.0}",
            "hard_first.py:6: `advantage` does not take `strength`, which the stage's `args` hold",
        ),
        ("method=algorithms/own_advantage/hard_first.py:advantages", "has no `advantages`"),
        ("method=own_reward/rewards.py:closeness", "may ask for rewards, completions"),
    ],
)
def test_an_advantage_that_cannot_be_called_is_told_before_the_run(setting: str, what: str) -> None:
    """Else the first step is sampled and scored, and then the run ends."""
    with pytest.raises(SpecFileError) as caught:
        load(SPEC, [OVERLAY], [f"stages.adv.config.{setting}"])
    assert any(what in problem.what for problem in caught.value.problems)
