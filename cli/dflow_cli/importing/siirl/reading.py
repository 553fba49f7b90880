"""What a person named, as pipelines of siiRL: a file, a folder, a script that starts a run, or a built-in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import CliError
from ...output import note
from .builders import build_workflows
from .builtin import BUILTIN
from .settings import OVERRIDE, Settings
from .workflow import Node, Workflow, make_workflow
from .workflowfile import read_workflow

WORKFLOWS = (".yaml", ".yml", ".json")
OF_SIIRL = {".py": ("siirl", "Pipeline"), **dict.fromkeys(WORKFLOWS, ("dag_id", "node_id"))}
"""Words that a file in a folder has to have, by its kind, to be read."""


def read_pipelines(named: str, settings: Settings) -> list[Workflow]:
    """`named`: as it was typed. Raises CliError where no pipeline is."""
    whole, colon, function = named.rpartition(":")
    path = Path(whole if colon and whole.endswith(".py") else named)
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        if f"{named}_pipeline" in BUILTIN:
            return [_builtin(f"{named}_pipeline")]
        names = ", ".join(name.removesuffix("_pipeline") for name in BUILTIN)
        hint = f"name a workflow, a Python file, a script, a folder, or one that siiRL comes with: {names}"
        raise CliError("there is no such file", where=named, hint=hint)
    if path.suffix == ".py":
        return build_workflows(path, function if path != Path(named) else "")
    if path.suffix in WORKFLOWS:
        return [read_workflow(path)]
    return _of_script(path, settings)


def is_script(named: str) -> bool:
    """Whether what was named holds a run's settings, too."""
    path = Path(named)
    return path.is_file() and path.suffix not in OF_SIIRL


def _builtin(function: str) -> Workflow:
    graph, nodes = BUILTIN[function]
    return make_workflow(graph, [Node.of(node) for node in nodes], f"siiRL's {function}")


def _of_script(path: Path, settings: Settings) -> list[Workflow]:
    """The pipeline that a run with these settings has: its own, or the one that siiRL takes for its algorithm."""
    if not any(OVERRIDE.match(key + "=") for key in settings.told):
        hint = "a script that starts siiRL has words of the form `algorithm.adv_estimator=grpo`"
        raise CliError("this is nothing of siiRL", where=str(path), hint=hint)
    own = settings.get("dag.custom_pipeline_fn") or settings.get("dag.workflow_path")
    if own:
        hint = "name that one, and this script by `--config`"
        raise CliError(f"its pipeline is elsewhere: {own}", where=str(path), hint=hint)
    kind = settings.get("algorithm.workflow_type", "default")
    chosen = {"dapo": "dapo_pipeline", "embodied": "embodied_srpo_pipeline"}.get(str(kind).lower())
    is_gae = settings.get("algorithm.adv_estimator", "gae") == "gae"  # siiRL's default
    return [_builtin(chosen or ("ppo_pipeline" if is_gae else "grpo_pipeline"))]


def _of_folder(folder: Path) -> list[Workflow]:
    found: list[Workflow] = []
    for path in _candidates(folder):
        try:
            found += build_workflows(path) if path.suffix == ".py" else [read_workflow(path)]
        except CliError as error:
            note(f"warning: {error.where}: {error.what}")
    if not found:
        hint = "a workflow has `dag_id` and `nodes`; a Python file has functions that build a `Pipeline` of siirl"
        raise CliError("no siiRL pipeline is in it", where=str(folder), hint=hint)
    return found


def _candidates(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in OF_SIIRL and path.is_file():
            text = path.read_bytes()
            if all(word.encode() in text for word in OF_SIIRL[path.suffix]):
                yield path
