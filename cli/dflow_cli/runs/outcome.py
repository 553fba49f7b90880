"""How a run stands, as daemons answer it and scripts read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import EXIT_DONE, EXIT_FAILED

_FINAL = {"finished": "done", "done": "done", "failed": "failed", "stopped": "stopped", "cancelled": "cancelled"}
_WHERE_ANY = (
    "error",
    "blocked",
    "paused",
    "starved",
    "skipped",
    "problems",
    "evidence",
)  # said where set


@dataclass(frozen=True, slots=True)
class Outcome:
    """`state`: active, then done, failed, stopped or cancelled. `step` of `steps` are done, on `nodes` daemons.
    `weights`: Merkle root over the final float32 parameters. `evals`: {step, accuracy, ...} in step order.
    `checkpoint`: node name -> folder on that node. `blocked`: why no living member can go on; `paused`: it
    waits for the rest of a mesh that is cut in two; `starved`: for room on the daemon that was asked. `problems`: what
    else stands about it on some daemon. `skipped`: partitions that were left out, as they failed everywhere;
    `evidence`: the failures that ended the run; `saved`: the step of its newest checkpoint. `reproducibility`: what the
    weights are a function of; from `since_step` on it is less than the spec says, as a limit decided a reward.
    `submitted_s`: when it began, in seconds since 1970. `gone`: its daemons have ended, and nothing is left of it that
    could go on."""

    run: str
    name: str
    state: str
    step: int
    steps: int
    nodes: int
    weights: str | None
    version: str | None
    evals: tuple[Mapping[str, Any], ...]
    checkpoint: Mapping[str, str]
    wall_s: float
    error: str = ""
    blocked: str = ""
    paused: bool = False
    starved: bool = False
    skipped: int = 0
    saved: int | None = None
    problems: tuple[Mapping[str, Any], ...] = ()
    evidence: tuple[Any, ...] = ()
    reproducibility: str = ""
    since_step: int | None = None
    submitted_s: float | None = None
    gone: bool = False
    spec: bytes = field(default=b"", repr=False)

    @property
    def is_final(self) -> bool:
        return self.state != "active"

    @property
    def exit_code(self) -> int:
        return EXIT_DONE if self.state == "done" else EXIT_FAILED

    @property
    def remark(self) -> str:
        """What is to be said of it beside its state."""
        names = ("run", "saved", "state", "error", "blocked", "paused", "starved", "problems", "skipped", "since_step")
        return remark({name: getattr(self, name) for name in (*names, "gone")})

    @property
    def evals_by_stage(self) -> dict[str, list[Mapping[str, Any]]]:
        """Evaluations of each `evaluate` stage, in step order."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in self.evals:
            found.setdefault(str(row.get("stage", "")), []).append(row)
        return found

    def to_json(self) -> dict[str, Any]:
        """What `run` and `wait` print: everything but the spec."""
        value: dict[str, Any] = {
            "run": self.run,
            "name": self.name,
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "nodes": self.nodes,
            "weights": self.weights,
            "version": self.version,
            "evals": [dict(row) for row in self.evals],
            "checkpoint": dict(self.checkpoint),
            "wall_s": round(self.wall_s, 3),
            "reproducibility": self.reproducibility,
            "since_step": self.since_step,
            "submitted_s": self.submitted_s,
        }
        more = {name: getattr(self, name) for name in _WHERE_ANY}
        return value | {name: list(item) if isinstance(item, tuple) else item for name, item in more.items() if item}


def remark(run: Mapping[str, Any]) -> str:
    """Why a run of a daemon's answer ended as it did, or what it waits for; empty where there is nothing to say."""
    if run.get("error"):
        return str(run["error"])
    if read_state(run["state"]) == "active" and (hindrance := _hindrance(run)):
        return hindrance
    if read_state(run["state"]) == "stopped":
        if run.get("gone"):
            return "nothing of it is kept that could go on"
        return f"`dflow resume {str(run['run'])[:8]}` goes on at step {run.get('saved') or 0}"
    skipped, since = int(run.get("skipped") or 0), run.get("since_step")
    told = [f"{skipped} partition{'' if skipped == 1 else 's'} skipped"] if skipped else []
    told += [f"replay since step {since}: a limit decided rewards"] if since is not None else []
    return "; ".join(told)


def _hindrance(run: Mapping[str, Any]) -> str:
    if run.get("blocked"):
        return f"blocked: {run['blocked']}"
    if run.get("starved"):
        return "waits for room: `dflow doctor` says where"
    if run.get("paused"):
        return "paused: waits for the other part of the mesh"
    problems = run.get("problems") or ()
    if not problems:
        return ""
    more = f" (and {len(problems) - 1} more: `dflow doctor`)" if len(problems) > 1 else ""
    return f"{problems[0]['what']} ({', '.join(problems[0]['nodes'])}){more}"


def goes_on(run: Mapping[str, Any]) -> str:
    """From where an active run goes on, and what of it is lost, by a daemon's answer to `runs`."""
    known = [step for step in (run.get("held"), run.get("saved")) if step is not None]
    start = max(known, default=0)
    lost = max(0, int(run.get("reached") or 0) - start)
    steps = f"{lost} step is" if lost == 1 else f"{lost} steps are"
    if lost and start == 0:
        return f"begins again at step 0: no checkpoint of it is left, and {steps} lost"
    return f"goes on at step {start}" + (f", from its checkpoint: {steps} lost" if lost else "")


def read_state(state: str) -> str:
    """active, done, failed, stopped or cancelled."""
    return _FINAL.get(state, "active")


def read_outcome(value: Mapping[str, Any]) -> Outcome:
    """From a daemon's answer to `run` or `wait`."""
    evals = sorted(value.get("evals") or [], key=lambda row: int(row["step"]))
    return Outcome(
        run=value["run"],
        name=value.get("name", ""),
        state=read_state(value["state"]),
        step=int(value.get("step", 0)),
        steps=int(value.get("steps", 0)),
        nodes=_count(value.get("nodes", 0)),
        weights=value.get("weights") or None,
        version=value.get("version") or None,
        evals=tuple(evals),
        checkpoint=value.get("checkpoint") or {},
        wall_s=float(value.get("wall_s") or 0.0),
        error=value.get("error") or "",
        blocked=value.get("blocked") or "",
        paused=bool(value.get("paused")),
        starved=bool(value.get("starved")),
        skipped=int(value.get("skipped") or 0),
        saved=value.get("saved"),
        problems=tuple(value.get("problems") or ()),
        evidence=tuple(value.get("evidence") or ()),
        reproducibility=value.get("reproducibility") or "",
        since_step=value.get("since_step"),
        submitted_s=value.get("submitted_s"),
        gone=bool(value.get("gone")),
        spec=value.get("spec") or b"",
    )


def _count(nodes: Any) -> int:
    return nodes if isinstance(nodes, int) else len(nodes)
