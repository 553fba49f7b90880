"""The nodes of a run: on what they run, when they were there, their part of the work, what they cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dflow_protocols.wire.endpoint import parse_endpoint

from .gathered import Rows
from .presence import Incident, Stay, hours, stays_of
from .prices import PriceOf
from .spans import Span


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node, and its part of the run. `share`: of all nodes' compute seconds. `cost`: None without a price."""

    name: str
    host: str
    device: str
    slots: int | None
    state: str
    stays: Sequence[Stay]
    hours: float
    tasks: int
    stolen: int
    again: int
    failed: int
    compute_s: float
    share: float
    cost: float | None


def node_lines_of(
    told: Rows,
    spans: Sequence[Span],
    incidents: Sequence[Incident],
    began_s: float,
    ended_s: float,
    price_of: PriceOf | None,
) -> list[NodeLine]:
    """Of the members in `told`, and of whoever else did tasks; `began_s` to `ended_s`: the run. Raises what `price_of`
    does."""
    named = {str(node["name"]): node for node in told if node.get("name")}
    stays = stays_of(incidents, spans, named, began_s, ended_s)
    total = sum(span.seconds for span in spans)
    by_node: dict[str, list[Span]] = {}
    for span in spans:
        by_node.setdefault(span.node, []).append(span)
    return [
        _line(name, named.get(name, {}), own, by_node.get(name, []), total, price_of) for name, own in stays.items()
    ]


def _line(
    name: str,
    told: Mapping[str, Any],
    stays: Sequence[Stay],
    spans: Sequence[Span],
    total: float,
    price_of: PriceOf | None,
) -> NodeLine:
    compute_s, spent = sum(span.seconds for span in spans), hours(stays)
    return NodeLine(
        name=name,
        host=_host(str(told.get("control") or "")),
        device=str(told.get("device") or ""),
        slots=told.get("slots"),
        state=str(told.get("state") or ""),
        stays=stays,
        hours=spent,
        tasks=len(spans),
        stolen=sum(span.origin == "stolen" for span in spans),
        again=sum(span.origin == "again" for span in spans),
        failed=sum(span.is_failed for span in spans),
        compute_s=compute_s,
        share=compute_s / total if total else 0.0,
        cost=None if price_of is None else spent * price_of(name),
    )


def _host(control: str) -> str:
    try:
        return parse_endpoint(control).host
    except ValueError:
        return ""
