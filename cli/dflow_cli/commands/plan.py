"""dflow plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Overlays, Sets, Spec, To

if TYPE_CHECKING:
    from dflow_protocols.pipeline import Pipeline, StepPlan

    from ..spec.specfile import Loaded


def plan(
    spec: Spec,
    overlays: Overlays = None,
    sets: Sets = None,
    step: Annotated[
        int | None, typer.Option("--step", min=0, metavar="STEP", help="Whose tasks; without it step 0.")
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the graph as Mermaid, and nothing else.")] = False,
    resolved: Annotated[
        bool,
        typer.Option("--resolved", help="Print the spec in full, as YAML (--json: JSON) that means the same."),
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Print what it takes of memory, and whether the mesh's daemons have it.")
    ] = False,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Draw a pipeline, who reads what, and list the tasks of a step. Starts nothing.

    With --memory: what it takes of shards, of engines and of GPUs, held against what the daemons of the mesh have
    (those in DIR, or behind --to); exit code 2, and what would make it fit, where it cannot run there. Where no mesh
    is, the needs alone.

    Example: dflow plan examples/spell_backward.yaml --step 60
    """
    from dflow_protocols.pipeline import plan as plan_step

    from ..errors import CliError
    from ..output import print_json
    from ..submitting.submission import read_spec
    from ..views.dag import draw_mermaid, draw_text

    loaded = read_spec(spec, overlays, sets)
    pipeline = loaded.pipeline
    if memory:
        from ..memory.plan import plan_memory

        plan_memory(loaded, Path(folder).absolute(), to, as_json)
        return
    if resolved:
        print_json(pipeline.to_dict()) if as_json else print(_written_out(loaded), end="")
        return
    if mermaid:
        print("\n".join(draw_mermaid(pipeline.stages)))
        return
    steps = pipeline.schedule.steps
    if step is not None and step > steps:
        hint = f"steps are 0 to {steps - 1}; {steps} evaluates the final version"
        raise CliError(f"{spec} has no step {step}", where="--step", hint=hint)
    step, first = step or 0, pipeline.schedule.first
    derived = [plan_step(pipeline, number) for number in range(first(step), first(step + 1))]
    if as_json:
        print_json({"spec": pipeline.id, "steps": steps, "step": step, "tasks": _task_rows(derived, step)})
        return
    print(f"{pipeline.name}: {steps} steps, spec {pipeline.id[:12]}; reproducibility {_claim(pipeline)}\n")
    print("\n".join(draw_text(pipeline.stages)))
    print(f"\nstep {step}")
    print("\n".join(line for each in derived for line in _describe(each)) or "nothing to do")


def _written_out(loaded: Loaded) -> str:
    """A spec in one file that means the same; of the files that it names digests are taken when it is read."""
    import yaml

    whole = {key: value for key, value in loaded.pipeline.to_dict().items() if key != "digests"}
    text: str = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return f"# spec {loaded.pipeline.id}; its paths start from {loaded.base}\n{text}"


def _claim(pipeline: Pipeline) -> str:
    """What the weights are a function of, and where that takes a certain kind of node."""
    needs = {word for stage in pipeline.stages for word in pipeline.needs(stage.id) - set(stage.requires)}
    where = f", on nodes that offer {', '.join(sorted(needs))}" if needs else ""
    return f"{pipeline.reproducibility}{where}"


def _task_rows(derived: Sequence[StepPlan], step: int) -> list[dict[str, Any]]:
    from dflow_protocols.pipeline import tasks

    keys = [key for each in derived for key in tasks(each)]
    return [{"id": str(key), "step": step, "stage": key.stage, "part": str(key.part)} for key in keys]


def _describe(derived: StepPlan) -> list[str]:
    """A line a chain, with the first and the last of its tasks, and the update."""
    from dflow_protocols.pipeline import partition_groups

    lines = []
    for chain in () if derived.is_carried else derived.chains:
        first, end = partition_groups(chain, 0)
        together = f"; a slot works on up to {chain.at_once} tasks together" if chain.at_once > 1 else ""
        rounds = chain.rounds
        until = f", in up to {rounds.most} rounds until {rounds.until} are kept" if rounds.counted else ""
        lines.append(
            f"  {' -> '.join(chain.stages)}: {chain.partitions} tasks a stage ({derived.step}/{chain.stages[0]}/p0 to "
            f"p{chain.partitions - 1}), {chain.groups} groups{until}, {end - first} in the first task{together}"
        )
    for training in derived.trainings:
        by = f"{training.most_tokens} (a constant)" if training.divisor == "constant" else training.divisor
        lines.append(
            f"  {training.stage}: {training.leaves} leaves, summed in blocks ({derived.step}/{training.stage}/b0-1 to "
            f"b{training.leaves - 1}-{training.leaves}); update {training.update + 1} of {training.updates} of "
            f"`{training.model}`, divided by {by}"
        )
    return lines
