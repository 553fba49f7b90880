"""A pipeline's stages as a graph: indented text for a terminal, Mermaid for a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dflow_protocols.pipeline import Stage


def draw_text(stages: Sequence[Stage]) -> list[str]:
    """A line a stage, each under the last of those that it waits for."""
    children: dict[str, list[Stage]] = {}
    for stage in stages:
        before = waited_for(stage)
        last = max(before, key=[other.id for other in stages].index, default="")
        children.setdefault(last, []).append(stage)
    lines = list(_branches(children, "", ""))
    width = max((len(head) for head, _ in lines), default=0)
    return [f"{head:<{width}}  {about}".rstrip() for head, about in lines]


def _branches(children: Mapping[str, list[Stage]], parent: str, indent: str) -> Iterable[tuple[str, str]]:
    below = children.get(parent, [])
    for stage in below:
        is_last = stage is below[-1]
        branch = "" if not parent else ("└─ " if is_last else "├─ ")
        yield f"{indent}{branch}{stage.id}", _about(stage)
        deeper = "" if not parent else ("   " if is_last else "│  ")
        yield from _branches(children, stage.id, indent + deeper)


def waited_for(stage: Stage) -> list[str]:
    """Ids of the stages that it waits for, each once."""
    return list(dict.fromkeys([*(read.partition(".")[0] for read in stage.reads), *stage.after]))


def _about(stage: Stage) -> str:
    parts = [stage.op if stage.model is None else f"{stage.op} {stage.model}"]
    if stage.engine is not None:
        parts.append(f"by {stage.engine}")
    if stage.reads:
        parts.append(f"reads {', '.join(stage.reads)}")
    parts.extend(_timing(stage))
    return "; ".join(parts)


def _timing(stage: Stage) -> list[str]:
    when = [f"when {stage.when}"] if stage.when is not None else []
    return [*when, f"every {stage.every} steps"] if stage.every > 1 else when


def draw_mermaid(stages: Sequence[Stage]) -> list[str]:
    """A Mermaid flowchart. Dotted arrows: who samples from the weights that a stage changes, one step later."""
    lines = ["flowchart LR"]
    for stage in stages:
        label = "<br/>".join([stage.id, stage.op if stage.model is None else f"{stage.op} {stage.model}"])
        timing = "".join(f"<br/>{_escaped(text)}" for text in _timing(stage))
        lines.append(f'  {stage.id}["{label}{timing}"]')
    for stage in stages:
        for source in waited_for(stage):
            outputs = [read.partition(".")[2] for read in stage.reads if read.partition(".")[0] == source]
            arrow = f"-->|{', '.join(outputs)}|" if outputs else "-->"
            lines.append(f"  {source} {arrow} {stage.id}")
    for stage in stages:
        if stage.operator.trains:
            users = [other for other in stages if other.model == stage.model and not other.operator.trains]
            lines.extend(f"  {stage.id} -.->|{stage.model}| {other.id}" for other in users)
    return lines


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
