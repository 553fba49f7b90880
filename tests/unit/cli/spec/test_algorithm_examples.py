"""The examples of algorithms: each is a line over the newcomer's pipeline, and can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.spec.specfile import load
from dflow_protocols.pipeline import plan
from dflow_protocols.pipeline.recipes.catalog import RECIPES
from tests.support.repository import EXAMPLES

FOLDER = EXAMPLES / "algorithms"
OVERLAYS = sorted(FOLDER.glob("*.yaml"))


def test_every_algorithm_has_its_example() -> None:
    assert sorted(path.stem for path in OVERLAYS) == sorted(RECIPES)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_example_can_run_and_names_its_source(overlay: Path) -> None:
    """`dflow run examples/spell_backward.yaml an overlay`, without a doubt that would be told."""
    text = overlay.read_text()
    assert text.startswith("# ")
    assert "https://" in text.splitlines()[0]
    assert f"algorithm: {overlay.stem}\n" in text
    loaded = load(EXAMPLES / "spell_backward.yaml", [overlay])
    assert loaded.warnings == ()
    derived = plan(loaded.pipeline, loaded.pipeline.schedule.firsts[60])
    assert derived.trainings
    assert len(derived.chains) == 1
