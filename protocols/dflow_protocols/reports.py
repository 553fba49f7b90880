"""The names of all reports: what a log line, a trace or a dashboard may say happened.

A name is `room.happened`. error: a person must act; warning: healed, look once; info: state changed; debug: the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ReportKind:
    """`level`: error | warning | info | debug. `fields`: those that may follow the name; what a peer can cause may
    also say how many like it went untold (`count`, `repeated`), and what came of a node's event the number of that
    (`cause`)."""

    level: str
    meaning: str
    fields: tuple[str, ...] = ()


MEMBERSHIP: Final[dict[str, ReportKind]] = {
    "membership.joined": ReportKind("info", "a member was heard of for the first time", ("node", "incarnation", "by")),
    "membership.alone": ReportKind(
        "warning",
        "no seed of this node has answered, nor has anybody else come: it is a mesh by itself",
        ("seeds",),
    ),
    "membership.suspected": ReportKind(
        "info", "a member answered neither `by` nor others, and has a while to refute", ("node", "incarnation", "by")
    ),
    "membership.confirmed": ReportKind("debug", "one more member suspects a suspect", ("node", "by")),
    "membership.refuted": ReportKind("info", "a suspect is alive after all", ("node", "incarnation")),
    "membership.died": ReportKind("info", "a suspect did not refute in time", ("node", "incarnation", "by")),
    "membership.left": ReportKind("info", "a member said goodbye", ("node", "incarnation")),
    "membership.drained": ReportKind("info", "a member, or this node, takes no new work from now on", ("node",)),
    "membership.undrained": ReportKind("info", "a member that was drained takes work again", ("node",)),
    "membership.returned": ReportKind(
        "info", "a member that was dead is back, with all that it had in memory", ("node", "incarnation")
    ),
    "membership.restarted": ReportKind("info", "a member's process lives a later life", ("node", "incarnation")),
    "membership.refuting": ReportKind("warning", "others think this node gone, and it denies", ("node", "state", "by")),
    "membership.outbid": ReportKind(
        "error",
        "others know a later life of this node than its disk does: the state directory was rolled back or copied",
        ("node", "incarnation"),
    ),
    "membership.stalled": ReportKind("warning", "this process was asleep past its deadline", ("seconds",)),
    "membership.rejoined": ReportKind(
        "info",
        "after a long sleep this node acts again: a member told what happened meanwhile, or nobody answered",
        ("answered",),
    ),
    "membership.silenced": ReportKind(
        "error",
        "another process with this node's key was there first: this one says nothing more until it is started anew",
        ("name", "control"),
    ),
    "membership.unreached": ReportKind(
        "warning",
        "a member speaks to this node but cannot be dialled at its announced address: no work, unless others reach it",
        ("node", "lane", "address"),
    ),
    "membership.reached": ReportKind("info", "a member that could not be dialled can be now", ("node",)),
    "membership.apart": ReportKind(
        "warning",
        "this node and a living member cannot talk to each other: what they say goes through a relay, if there is one",
        ("node", "relay", "seconds"),
    ),
    "membership.unsteady": ReportKind(
        "warning",
        "a member was suspected twice of late and denied it each time, so the next steps are not dealt to it",
        ("node",),
    ),
    "membership.together": ReportKind("info", "a member that was apart can be talked to again", ("node",)),
    "membership.unreachable": ReportKind(
        "error",
        "a member cannot dial this node at the address that it announces",
        ("peer", "lane", "address"),
    ),
    "membership.bad_claim": ReportKind("warning", "a member claimed what cannot be", ("node", "incarnation")),
    "membership.bad_meta": ReportKind("warning", "a member's announced key is not its own", ("node",)),
    "membership.full": ReportKind("error", "no room for another member", ("node", "members")),
}

AUDIT: Final[dict[str, ReportKind]] = {
    "audit.submitted": ReportKind("info", "a client's key submitted a run through this daemon", ("run", "by", "key")),
    "audit.cancelled": ReportKind("info", "a client's key cancelled a run through this daemon", ("run", "by", "key")),
    "audit.stopped": ReportKind("info", "a client's key stopped a run through this daemon", ("run", "by", "key")),
    "audit.resumed": ReportKind("info", "a client's key resumed a run through this daemon", ("run", "by", "key")),
    "audit.drained": ReportKind("info", "a client's key drained a node through this daemon", ("node", "by", "key")),
    "audit.undrained": ReportKind("info", "a client's key ended that through this daemon", ("node", "by", "key")),
}

RUNS: Final[dict[str, ReportKind]] = {
    "run.submitted": ReportKind("info", "a client of this daemon submitted a run", ("run", "name")),
    "run.taken_back": ReportKind(
        "info", "a run is forgotten, whose client was told no: this node alone was to keep it and could not", ("run",)
    ),
    "run.heard": ReportKind("info", "a member told of a run that was unknown here", ("run", "name", "from")),
    "run.refused": ReportKind(
        "warning",
        "a member told of a run that cannot be: its spec is broken or its id another",
        ("run", "from", "error"),
    ),
    "run.unreadable": ReportKind(
        "error", "a run kept on disk cannot be read, and is not taken up: its file stays as it is", ("run", "error")
    ),
    "run.forgotten": ReportKind("info", "a run that ended thirty days ago is remembered no more", ("run",)),
    "run.ended": ReportKind(
        "info",
        "a run failed, was stopped, finished or was cancelled, as found here or as told by a member",
        ("run", "state", "version", "weights", "step", "samples", "facts", "error", "evidence", "stopped"),
    ),
    "run.resumed": ReportKind(
        "info", "a run that failed, was stopped or gave way is active again, at this attempt", ("run", "attempt")
    ),
    "run.broken": ReportKind(
        "error", "a fault of this program: what was due in this run was not derived", ("run", "error", "at")
    ),
    "run.gave_way": ReportKind(
        "warning",
        "a run waits, since another one, `to`, found no room beside it: its newest version is saved and freed, and it "
        "goes on by itself when that has ended",
        ("run", "to"),
    ),
    "checkpoint.saved": ReportKind(
        "info", "a version lies whole on this node's disk", ("run", "step", "version", "folder")
    ),
    "checkpoint.loaded": ReportKind(
        "info", "a version is back from this node's disk, and the run goes on from it", ("run", "step", "version")
    ),
    "checkpoint.refused": ReportKind(
        "error",
        "a checkpoint is torn, damaged or of another run: it is passed over, and the next older one taken",
        ("run", "step", "version", "folder", "error"),
    ),
    "step.advanced": ReportKind(
        "info",
        "this node holds a newer version whole; `copied` from others, or made here in `seconds` since the step opened",
        ("run", "step", "version", "copied", "seconds"),
    ),
    "run.set_back": ReportKind(
        "warning",
        "the run goes on from an older version than this node had reached, or begins again: `lost` steps are redone",
        ("run", "step", "reached", "lost"),
    ),
    "run.regained": ReportKind("info", "the run is as far again as it had been here", ("run", "step")),
    "run.branch_lost": ReportKind(
        "warning",
        "another chain of versions counts after a split: what this part of the mesh trained since `fork_step` does not",
        ("run", "version", "kept", "fork_step", "steps", "samples"),
    ),
    "run.paused": ReportKind(
        "warning",
        "most of the step's roster is dead or cut off, and the pipeline asks the smaller part to wait",
        ("run", "step", "here", "roster"),
    ),
    "run.unpaused": ReportKind("info", "the run goes on here", ("run", "step", "here", "roster")),
    "run.blocked": ReportKind(
        "warning",
        "no member on duty can go on with the open step: none offers what a stage needs, has the run's files, or runs "
        "its code; it waits",
        ("run", "step", "why"),
    ),
    "run.unblocked": ReportKind("info", "a member can go on with the open step", ("run", "step", "why")),
    "run.stalled": ReportKind(
        "warning",
        "nothing new came about in the open step for so many seconds: what it waits for, and of whom",
        ("run", "step", "what", "whom", "seconds"),
    ),
    "run.unstalled": ReportKind("info", "the step goes on", ("run", "step")),
    "work.repeated": ReportKind(
        "warning",
        "this node did a unit so often in one step: what it made is not there when needed",
        ("run", "unit", "times"),
    ),
    "operator.withdrawn": ReportKind(
        "warning",
        "different tasks of a stage failed here in a row: others take them for so many seconds, then it tries again",
        ("run", "stage", "seconds", "error"),
    ),
    "operator.resumed": ReportKind("info", "this node takes tasks of the stage again", ("run", "stage")),
    "task.skipped": ReportKind(
        "warning",
        "a task is at fault, not its hosts: the step goes on without that partition",
        ("run", "task", "kind", "error", "nodes"),
    ),
    "step.short": ReportKind(
        "warning",
        "fewer groups were kept, in all rounds that a step may have, than were asked for: it trains on these",
        ("run", "step", "rounds", "kept", "until"),
    ),
    "leaf.not_finite": ReportKind(
        "warning",
        "of leaves made here the loss or gradient is no number, `leaf` the first: the step's update is left out",
        ("run", "step", "stage", "leaf", "leaves"),
    ),
    "update.skipped": ReportKind(
        "warning", "a gradient was no number: this version has the weights of the last", ("run", "step", "stage")
    ),
    "update.withdrawn": ReportKind(
        "warning",
        "version after version could not be made here: those before step `until` are copied from who makes them, then "
        "it tries again",
        ("run", "step", "until", "error"),
    ),
    "update.resumed": ReportKind("info", "this node makes its versions itself again", ("run",)),
    "reward.failed": ReportKind(
        "warning",
        "answers of a partition got no score of their own, and the stage's `on_error` says what that costs them; the "
        "first failure",
        ("run", "step", "stage", "task", "error"),
    ),
    "task.failed": ReportKind(
        "warning", "a task gave nothing here; it is tried again", ("run", "task", "kind", "error")
    ),
}

ENGINES: Final[dict[str, ReportKind]] = {
    "engine.started": ReportKind("info", "a slot's engine process was started", ("slot", "engine", "pid")),
    "engine.ready": ReportKind("debug", "an engine passed its own test and takes work", ("slot", "numerics")),
    "engine.died": ReportKind(
        "warning",
        "an engine ended, hung or was ended without being asked; its task goes back",
        ("slot", "reason", "task", "doing"),
    ),
    "slot.drained": ReportKind(
        "error",
        "the device of a slot failed: what ran there goes back, and the slot takes nothing until the device is mended",
        ("slot", "device", "why"),
    ),
    "slot.restored": ReportKind(
        "info", "the device of a slot answers again, and the slot takes work", ("slot", "device")
    ),
    "engine.stuck": ReportKind(
        "warning",
        "a call makes no progress, and is ended after limit_s without any",
        ("run", "slot", "task", "stage", "doing", "seconds", "limit_s"),
    ),
    "engine.unstuck": ReportKind("info", "the call of that slot moves again, or is over", ("slot",)),
}

SHARDS: Final[dict[str, ReportKind]] = {
    "disk.full": ReportKind("error", "the state directory's disk did not take something", ("what",)),
    "history.damaged": ReportKind(
        "warning", "lines of what a run gave for people are damaged on this disk, and passed over", ("file", "lines")
    ),
    "history.unwritten": ReportKind("warning", "lines for people found no room on this disk, and are lost", ("error",)),
    "history.dropped": ReportKind(
        "info", "what the oldest run gave for people made room for newer ones", ("run", "bytes")
    ),
    "disk.roomy": ReportKind("info", "the state directory's disk has room again", ("free_bytes",)),
    "shards.disk_failed": ReportKind("error", "a chunk could not be written to this node's disk", ("shard", "count")),
    "shards.full": ReportKind("warning", "no room for a shard that is to be fetched", ("run", "why")),
    "shards.corrupt": ReportKind(
        "error",
        "a holder sent bytes that are not those of the shard, and is not asked for it again",
        ("shard", "holder"),
    ),
}

WIRE: Final[dict[str, ReportKind]] = {
    "wire.refused": ReportKind(
        "warning", "a peer's message could not be read or was not its to send", ("peer", "error")
    ),
    "wire.too_long": ReportKind("error", "a message to a peer is longer than a frame may be", ("message", "error")),
    "transport.stranger": ReportKind(
        "warning", "a key that is not on the allow-list, or no session, was turned away", ("peer", "why")
    ),
    "transport.refused": ReportKind("warning", "a peer cannot be dialled, or may not speak any more", ("peer", "why")),
    "transport.short_only": ReportKind(
        "warning",
        "the path to a member loses long packets; from now on the bulk lane keeps to short ones",
        ("peer", "why"),
    ),
    "transport.short_too": ReportKind(
        "info", "a member's bulk lane keeps to short packets; from now on this one does, too", ("peer",)
    ),
    "transport.slow_link": ReportKind(
        "warning", "a holder brings far less than a link should carry, while it is waited for", ("peer", "bytes_s")
    ),
    "transport.link_recovered": ReportKind(
        "info", "a holder whose link was slow brings what it should again", ("peer", "bytes_s")
    ),
    "transport.revoked": ReportKind(
        "info", "a key is no longer on the allow-list as what it was; its links are cut", ("peer", "name", "role")
    ),
    "transport.cut": ReportKind(
        "warning", "a link was cut: too many from one address or key, or bytes that are no message", ("peer", "why")
    ),
    "transport.deaf": ReportKind(
        "warning", "a peer does not read what it asked for, and gets no more", ("peer", "why")
    ),
    "transport.flooded": ReportKind("warning", "a peer sends more frames than its rate allows", ("peer", "why")),
    "transport.allow_list": ReportKind(
        "warning", "the allow-list cannot be read; the last good one holds", ("peer", "why")
    ),
    "transport.fault": ReportKind("error", "a fault of this program in a lane's thread", ("lane", "error")),
}

DAEMON: Final[dict[str, ReportKind]] = {
    "daemon.started": ReportKind(
        "info",
        "the daemon can be talked to; `took_s` since its process began",
        ("name", "control", "bulk", "pid", "took_s"),
    ),
    "daemon.leaving": ReportKind(
        "info", "asked to stop: it hands over what only it has, within patience_s", ("patience_s",)
    ),
    "daemon.stopped": ReportKind("info", "the daemon ends; `clean` if all was handed over", ("clean",)),
    "daemon.fault": ReportKind(
        "error", "a fault of this program that nothing caught", ("where", "at", "error", "count")
    ),
    "daemon.overdue": ReportKind(
        "error", "the time to leave is over and the daemon ends, though something held it up `at` this line", ("at",)
    ),
    "driver.handle_failed": ReportKind(
        "error", "a fault of this program: an event was not taken", ("doing", "error", "at", "peer")
    ),
    "driver.perform_failed": ReportKind(
        "error",
        "a fault of this program, or of its disk: an action was not performed",
        ("doing", "error", "at", "peer"),
    ),
    "exporter.listening": ReportKind("info", "`/metrics` and `/healthz` are served at this port", ("port",)),
    "service.failed": ReportKind("error", "a client's request could not be answered", ("peer", "method", "error")),
}

REPORTS: Final[dict[str, ReportKind]] = {**MEMBERSHIP, **AUDIT, **RUNS, **ENGINES, **SHARDS, **WIRE, **DAEMON}
