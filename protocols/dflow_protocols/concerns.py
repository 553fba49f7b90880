"""Concerns: reports that stand after they were made. `dflow ps`, `watch` and `doctor` show them until they are over.

A log line is read by who looks for it. What a person must know who only asks how a run or a mesh does is a row here:
each report of level warning or error has one, or stands in ELSEWHERE with where else it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

MINUTES, HOUR = 600.0, 3600.0  # seconds that a concern stands where nothing tells when it is over


@dataclass(frozen=True, slots=True)
class Concern:
    """`what`: words for people, with the report's fields in braces. `hint`: what a person can do about it. `by`: the
    fields that tell two of one kind apart; with `run` among them it is shown with that run. `over`: the reports that
    take it back, of those whose fields are the same as far as both have them. `stands_s`: for at most so long."""

    what: str
    hint: str
    by: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    stands_s: float = inf

    def said(self, fields: Mapping[str, Any]) -> str:
        return self.what.format_map(_Shown(fields))

    def key(self, name: str, fields: Mapping[str, Any]) -> str:
        return "/".join([name, *(str(fields.get(field, "")) for field in self.by)])


class _Shown(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


_UPGRADE = "install one release on all hosts"
_FAULT = "its log has the lines around it: send them to the authors; the daemon goes on"

MEMBERS: Final[dict[str, Concern]] = {
    "membership.outbid": Concern(
        "others know a later life of this daemon than its disk does",
        "give it a state directory of its own: this one was rolled back or copied",
        stands_s=HOUR,
    ),
    "membership.stalled": Concern(
        "this process was asleep for {seconds} s",
        "look at the host: it was paused, swapped out or starved; what the daemon had stays good",
        stands_s=MINUTES,
    ),
    "membership.alone": Concern(
        "it is a mesh by itself: none of its seeds has answered ({seeds})",
        "start one; this daemon's line has to be on their allow-lists, and both ports open: `transport.stranger` in "
        "their logs tells that the line is missing",
        over=("membership.joined",),
    ),
    "membership.apart": Concern(
        "cannot talk to {node}, which lives; what the two say goes through others",
        "look at firewalls, routes and ports between these two hosts; the run goes on",
        ("node",),
        ("membership.together",),
    ),
    "membership.unsteady": Concern(
        "{node} comes and goes: it is suspected again and again, lives, and is dealt no steps meanwhile",
        "look at its cable, its switch's port, and what else its processors do",
        ("node",),
        stands_s=MINUTES,
    ),
    "membership.bad_claim": Concern("{node} claims what cannot be", _UPGRADE, ("node",), stands_s=MINUTES),
    "membership.bad_meta": Concern("{node} announces a key that is not its own", _UPGRADE, ("node",), stands_s=MINUTES),
    "membership.full": Concern(
        "no room for another member: {members} are known", "take daemons that are gone off the allow-list", (), (), HOUR
    ),
}

RUNS: Final[dict[str, Concern]] = {
    "run.refused": Concern(
        "{from} tells of run {run}, which cannot be: {error}", _UPGRADE, ("run", "from"), stands_s=MINUTES
    ),
    "run.unreadable": Concern(
        "run {run} is on this disk and cannot be read: {error}",
        "start the release that wrote it, or submit its spec again",
        ("run",),
        ("run.heard",),
    ),
    "checkpoint.refused": Concern(
        "the checkpoint of step {step} on this disk is refused: {error}",
        "an older one is taken, or another daemon's; remove its folder when the run is well",
        ("run", "step"),
        ("checkpoint.saved", "run.forgotten"),
        24 * HOUR,
    ),
    "run.set_back": Concern(
        "set back to step {step}: {lost} steps are lost, this daemon had reached {reached}",
        "it does them again; `checkpoint: {{every: N}}` in the spec says how many a power cut may cost",
        ("run",),
        ("run.regained", "run.ended"),
    ),
    "run.branch_lost": Concern(
        "after a split the other part's training counts: {steps} steps from {fork_step} on do not",
        "`on_split: pause_minority` in the spec lets the smaller part wait",
        ("run",),
        ("run.ended",),
        HOUR,
    ),
    "run.paused": Concern(
        "paused at step {step}: {here} of {roster} members are here",
        "mend the network; or `dflow resume RUN` lets this part go on alone",
        ("run",),
        ("run.unpaused", "run.ended"),
    ),
    "run.gave_way": Concern(
        "gave way to run {to}, as there is no room for both",
        "it goes on by itself when that run has ended; raise shards.memory_limit or shards.disk_limit to have both",
        ("run",),
        ("run.resumed", "run.ended"),
    ),
    "run.blocked": Concern(
        "blocked at step {step}: {why}",
        "add a daemon that offers it (node.roles, or a GPU), has the files or runs the code, or end a drain; "
        "`dflow nodes` shows who",
        ("run",),
        ("run.unblocked", "run.ended"),
    ),
    "run.stalled": Concern(
        "stalled at step {step}: nothing new for {seconds} s, it waits for {what} of {whom}",
        "look at those daemons with `dflow doctor` and `dflow logs`; one that is stuck may be restarted at any time",
        ("run",),
        ("run.unstalled", "run.ended"),
    ),
    "work.repeated": Concern(
        "{unit} was done {times} times: what it makes is not there when it is needed",
        "nothing, if the step goes on; else look for `shards.full`, and at the disk behind the store",
        ("run",),
        ("step.advanced", "run.ended"),
    ),
    "operator.withdrawn": Concern(
        "stage {stage} is left to other daemons for {seconds} s: {error}",
        "mend what the error names on this host; it tries again by itself",
        ("run", "stage"),
        ("operator.resumed", "run.ended"),
    ),
    "update.withdrawn": Concern(
        "its updates fail, so it copies versions from other daemons until step {until}: {error}",
        "mend what the error names on this host; it tries again by itself, at once when the daemon is restarted",
        ("run",),
        ("update.resumed", "run.ended"),
    ),
    "step.short": Concern(
        "step {step} has {kept} of {until} groups after {rounds} rounds, and trains on these",
        "lower `until` or raise `max` of its `rounds`, or look why so few groups are kept",
        ("run",),
        ("run.ended",),
        MINUTES,
    ),
    "leaf.not_finite": Concern(
        "leaf {leaf} of `{stage}` was not finite at step {step}: its update is left out",
        "lower `lr`, or set `clip_norm: 1.0`; `on_nonfinite: fail` ends the run instead",
        ("run",),
        ("run.ended",),
        HOUR,
    ),
    "update.skipped": Concern(
        "the update of `{stage}` at step {step} was left out: its gradient is not finite",
        "once is harmless; again and again: lower `lr`, and look at the samples of that step",
        ("run",),
        ("run.ended",),
        HOUR,
    ),
    "reward.failed": Concern(
        "answers of `{stage}` got no score at step {step}: {error}",
        "mend the function; `dflow metrics RUN` counts them (unscored, reward_errors, reward_timeouts)",
        ("run", "stage"),
        ("run.ended",),
        HOUR,
    ),
    "task.failed": Concern(
        "{task} failed and is tried again: {error}",
        "nothing, if it goes on; else mend what the error names",
        ("run",),
        ("step.advanced", "run.ended"),
    ),
}

ROOMS: Final[dict[str, Concern]] = {
    "engine.died": Concern(
        "the engine of slot {slot} ended: {reason}",
        "once is healed by itself; again and again: memory, or a library that crashes",
        ("slot",),
        stands_s=MINUTES,
    ),
    "slot.drained": Concern(
        "slot {slot} takes no work: {device} {why}",
        "`dmesg` (Xid) says why; `nvidia-smi -r` or a restart of the host may mend it; then restart the daemon",
        ("slot",),
        ("slot.restored",),
    ),
    "engine.stuck": Concern(
        "stage {stage}: no progress for {seconds} s while {doing}; ended after {limit_s} s",
        "look at what it waits for; a slow function wants a higher engine.stall_s",
        ("run", "slot"),
        ("engine.unstuck", "engine.died", "run.ended"),
    ),
    "history.damaged": Concern(
        "{lines} lines of {file} are damaged: rows of `dflow metrics`, `tasks` or `samples` are missing",
        "test the disk; other daemons mostly have the same figures",
        ("file",),
        (),
        HOUR,
    ),
    "history.unwritten": Concern(
        "figures, samples or tasks are not kept: {error}",
        "free some of the state directory's disk: what was to be written meanwhile is lost when the daemon ends",
        stands_s=MINUTES,
    ),
    "shards.disk_failed": Concern(
        "chunks could not be written to this daemon's disk", "look at the disk: `dmesg`, SMART", (), (), HOUR
    ),
    "shards.corrupt": Concern(
        "{holder} sent bytes that are not those of the shard",
        "look at that host's memory and disk; nothing wrong was used",
        ("holder",),
        (),
        HOUR,
    ),
    "wire.refused": Concern("{peer} sends what cannot be read: {error}", _UPGRADE, ("peer",), stands_s=MINUTES),
    "wire.too_long": Concern("a {message} is longer than a frame may be: {error}", _FAULT, ("message",), (), HOUR),
    "transport.stranger": Concern(
        "a stranger dials from {peer}: {why}",
        "a host of yours: `dflow keys authorize`; else nothing, it gets no byte",
        stands_s=MINUTES,
    ),
    "transport.refused": Concern("{peer}: {why}", "compare its line on the allow-lists", ("peer",), stands_s=MINUTES),
    "transport.short_only": Concern(
        "the path to {peer} loses long packets, so shards go in short ones: {why}",
        "make the MTU of both hosts' links what the path carries, or set net.ipv4.tcp_mtu_probing = 1 on both",
        ("peer",),
        stands_s=HOUR,
    ),
    "transport.slow_link": Concern(
        "{peer} brings shards at {bytes_s} bytes a second: the link is narrow or full, or loses packets",
        "measure it (`iperf3`), and look for errors of cables, duplex and switches; each step waits for it",
        ("peer",),
        ("transport.link_recovered",),
        HOUR,
    ),
    "transport.cut": Concern("a link of {peer} was cut: {why}", "look what runs there", (), (), MINUTES),
    "transport.deaf": Concern("{peer} does not read what it asked for: {why}", "look at that host", (), (), MINUTES),
    "transport.flooded": Concern("{peer} sends too much: {why}", "look what runs there", (), (), MINUTES),
    "transport.allow_list": Concern(
        "the allow-list cannot be read, the last good one holds: {peer}: {why}", "mend that line", (), (), MINUTES
    ),
    "transport.fault": Concern("a fault of this program in lane {lane}: {error}", _FAULT, ("lane",), (), HOUR),
    "daemon.fault": Concern("a fault of this program at {at}, {where}: {error}", _FAULT, ("at",), (), HOUR),
    "driver.handle_failed": Concern("a fault of this program at {at}: {error}", _FAULT, ("at",), (), HOUR),
    "run.broken": Concern("a fault of this program at {at}: {error}", _FAULT, ("run",), ("run.ended",), HOUR),
    "driver.perform_failed": Concern(
        "a fault of this program, or of its disk, at {at}: {error}", _FAULT, ("at",), (), HOUR
    ),
    "service.failed": Concern("`{method}` could not be answered: {error}", _FAULT, ("method",), (), HOUR),
}

CONCERNS: Final[dict[str, Concern]] = {**MEMBERS, **RUNS, **ROOMS}

ELSEWHERE: Final[dict[str, str]] = {
    "membership.refuting": "`membership.late` stands while this daemon is slow; else it is over at once",
    "membership.silenced": "dflowd/service/troubles.py",
    "membership.unreached": "dflowd/service/troubles.py",
    "membership.unreachable": "dflowd/service/troubles.py",
    "task.skipped": "`skipped` in the run's answer, counted from its versions",
    "daemon.overdue": "the daemon ends with it: its log and its exit status",
    "disk.full": "the disk's own problem, which it takes back",
    "shards.full": "the room's own problem, with what is needed",
}
"""Warnings and errors that are shown without a row above, and where."""
