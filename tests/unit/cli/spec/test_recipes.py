"""The page of recipes: what people copy from it can run, as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from dflow_cli.commands.init import TEMPLATE
from dflow_cli.spec.specfile import Loaded, SpecFileError, load
from tests.support.repository import EXAMPLES, ROOT

PAGE = (ROOT / "docs" / "recipes.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
RECIPES = {title: text for title, text in SECTIONS.items() if "```yaml" in text}


def laid_over(title: str, folder: Path) -> Loaded:
    """The pipeline that `dflow init` writes, with the recipe over it. Raises SpecFileError."""
    task = folder / "my_task"
    shutil.copytree(TEMPLATE, task, ignore=shutil.ignore_patterns("__pycache__"))
    (recipe,) = re.findall(r"```yaml\n(.*?)```", RECIPES[title], re.DOTALL)
    (task / "recipe.yaml").write_text(recipe)
    shutil.copy(EXAMPLES / "algorithms" / "dpo" / "pairs.jsonl", task)  # in place of the reader's own
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", RECIPES[title], re.DOTALL):
        (task / name).write_text(code)
    return load(task / "pipeline.yaml", [task / "recipe.yaml"])


@pytest.mark.parametrize("title", [title for title in RECIPES if title != "A model of a hub"])
def test_a_recipe_can_run(title: str, tmp_path: Path) -> None:
    """As it stands, over the pipeline that it is said to be for."""
    told = [warning.what for warning in laid_over(title, tmp_path).warnings]
    assert [what for what in told if "vllm" not in what] == []  # that it is not installed here is no fault of the page


def test_a_model_of_a_hub_lacks_nothing_but_the_model(tmp_path: Path) -> None:
    """Its folder is the reader's to fetch, and the error says how."""
    with pytest.raises(SpecFileError) as caught:
        laid_over("A model of a hub", tmp_path)
    (problem,) = caught.value.problems
    assert problem.what == "there is no folder `qwen`"
    assert "hf download" in problem.hint
