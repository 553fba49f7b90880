"""What facts of hosts and meshes mean: each is in order, worth a look, or wrong, with what mends it.

Pure: facts come from `dflowd check-config --json` and from the daemons' answer to `doctor` (see examine.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dflow_protocols.wire.endpoint import parse_endpoint

from ..output import seconds
from ..views.gpus import is_old, load

State = Literal["ok", "warning", "wrong"]
Facts = Mapping[str, Any]

GIB = 1 << 30
LEAST_FILES = 4096  # descriptors: a handful a peer and lane, one a shard
DISK_LOW, DISK_OUT = 5 * GIB, GIB // 4  # checkpoints are twelve bytes a parameter
CLOCK_OFF_S = 2.0
PASSING = ("membership.late",)  # a loaded host has it now and then


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `subject`: what was looked at. `place`: the daemon or file that it is about."""

    subject: str
    place: str
    state: State
    what: str
    mend: str = ""


def judge_config(found: Facts) -> Iterator[Check]:
    """A daemon's configuration on this host, as `dflowd check-config --json` found it."""
    place = str(found["facts"]["name"])
    if found.get("was_killed"):
        mend = "start it again: it goes on from what it left; the last lines of its log and `dmesg` may say why"
        yield Check("daemon", place, "wrong", "it ended without being asked: killed, or by a power cut", mend)
    for lane, port in found["listen"].items():
        yield _port(place, lane, port)
    yield _key(place, found)
    if found["allow_list"]["open_to_all"]:
        path = found["allow_list"]["path"]
        yield Check("allow-list", place, "wrong", f"every user of this host may change {path}", f"chmod o-w {path}")
    yield from _seeds(place, found)


def _port(place: str, lane: str, port: Facts) -> Check:
    address, subject = port["address"], f"{lane} port"
    match port["state"]:
        case "taken":
            mend = f"stop what listens there (`ss -ltnp` names it), or give listen.{lane} another port"
            return Check(subject, place, "wrong", f"{address} is in use by another process", mend)
        case "foreign":
            mend = f"give listen.{lane} an address of this host; `ip address` lists them"
            return Check(subject, place, "wrong", f"{address} is no address of this host", mend)
        case "ours":
            return Check(subject, place, "ok", f"{address}: the daemon listens")
        case "any":
            mend = f"give listen.{lane} a fixed port where other hosts or a firewall are to know it"
            return Check(subject, place, "ok", f"{address}: a free port is taken at the start", mend)
    return Check(subject, place, "ok", f"{address} is free")


def _key(place: str, found: Facts) -> Check:
    key, allow_list = found["key"], found["allow_list"]["path"]
    if not key["public"]:
        mend = f"make it now, to put it on the allow-lists: dflow keys new {key['file']}"
        return Check("key", place, "warning", "no key yet: the first start makes one that no list has", mend)
    line, control = key["listed"], found["listen"]["control"]["address"].removeprefix("tcp://")
    if line is None or line["role"] != "node":
        what = "is not on it" if line is None else "stands there as a client's"
        mend = f"dflow keys authorize {allow_list} '{key['public']}' {place} --address {control}"
        return Check("key", place, "wrong", f"{allow_list}: this daemon's own key {what}", mend)
    if line["address"] not in ("", control):
        mend = "mend whichever is wrong; seeds that name this line dial what it says"
        return Check("key", place, "warning", f"its line says {line['address']}, it listens on {control}", mend)
    others = found["allow_list"]["nodes"] - 1
    return Check("key", place, "ok", f"listed as {line['name']}, with {others} other node{'' if others == 1 else 's'}")


def _seeds(place: str, found: Facts) -> Iterator[Check]:
    own, seeds = found["listen"]["control"]["address"], list(found["seeds"])
    others = [seed for seed in seeds if seed != own]
    if found["allow_list"]["nodes"] > 1 and not others:
        mend = "name one or two other daemons in mesh.seeds"
        yield Check("seeds", place, "warning", "none: this daemon waits until another one finds it", mend)
    if _is_loopback(own) and any(not _is_loopback(seed) for seed in others):
        mend = "give listen.control and listen.bulk the address by which other hosts reach this one"
        yield Check("seeds", place, "wrong", f"its seeds are on other hosts, and they cannot dial {own}", mend)


def _is_loopback(address: str) -> bool:
    return parse_endpoint(address).is_loopback


def judge_host(facts: Facts, is_running: bool) -> Iterator[Check]:
    """Limits, memory and disk of one daemon's host, measured there."""
    place, memory, disk = str(facts["name"]), facts["memory"], facts["disk"]
    files = facts["limits"]["nofile"]
    if files is not None and files < LEAST_FILES:
        mend = f"`LimitNOFILE=65536` in its systemd unit, or `ulimit -n {LEAST_FILES}` before it starts"
        yield Check("limits", place, "warning", f"{files} open files at most", mend)
    else:
        yield Check("limits", place, "ok", f"{'any number of' if files is None else files} open files")
    yield _shards(place, memory, is_running)
    yield from _engines(place, facts)
    yield from _gpus(place, facts)
    free = disk["free"]
    mend = f"make room, or move node.state_dir off {disk['path']}; `checkpoint.keep` says how many are kept"
    if not disk["writable"]:
        yield Check("disk", place, "wrong", f"{disk['path']} cannot be written", "chown it to the daemon's user")
    elif free < DISK_LOW:
        state: State = "wrong" if free < DISK_OUT else "warning"
        yield Check("disk", place, state, f"{_size(free)} free at {disk['path']}", mend)
    else:
        yield Check("disk", place, "ok", f"{_size(free)} free")


def _engines(place: str, facts: Facts) -> Iterator[Check]:
    """Engines that not every host has. One that is not installed is no fault; one that cannot be used is."""
    for offer in facts.get("engines_offered", ()):
        name = str(offer["engine"])
        if offer["release"]:
            yield Check(name, place, "ok", f"release {offer['release']}: stages with `engine: {name}` run here")
        else:
            is_absent = offer["why"] == "not installed"
            what = f"{offer['why']}: stages with `engine: {name}` run elsewhere"
            yield Check(name, place, "ok" if is_absent else "warning", what, str(offer["remedy"]))


def _gpus(place: str, facts: Facts) -> Iterator[Check]:
    """Each GPU, as far as the driver tells."""
    for index, gpu in enumerate(facts.get("gpus", ())):
        subject, errors = f"GPU {index}", gpu["ecc_errors"]
        if gpu["fell_off"]:
            mend = "`nvidia-smi -r` or a restart of the host brings it back, if anything; `dmesg` (Xid) says why"
            yield Check(subject, place, "wrong", f"{gpu['name'] or 'it'} fell off the bus", mend)
            continue
        told = f"{gpu['name']}: {load(gpu)}"
        if is_old(gpu):
            mend = "look at `dmesg` (NVRM, Xid) and try `nvidia-smi`; a driver that hangs wants a restart of the host"
            what = f"the driver does not answer; {seconds(gpu['age_s'])} ago it told: {told}"
            yield Check(subject, place, "warning", what, mend)
        elif errors:
            mend = "reset it (`nvidia-smi -r`) when nothing runs there; if they come again, have it replaced"
            yield Check(subject, place, "warning", f"{told}; {errors} uncorrected memory errors", mend)
        elif gpu["celsius"] is not None and gpu["hot_at"] is not None and gpu["celsius"] >= gpu["hot_at"]:
            yield Check(subject, place, "warning", f"{told}: it slows down", "look at its cooling")
        else:
            yield Check(subject, place, "ok", told)


def _shards(place: str, memory: Facts, is_running: bool) -> Check:
    limit, group = memory["shards_limit"], memory["cgroup_limit"]
    limits = f"shards.memory_limit is {_size(limit)}"
    if limit >= memory["total"]:
        return Check("memory", place, "wrong", f"{limits}, the host has {_size(memory['total'])}", "lower the limit")
    if group is not None and limit >= group:
        mend = "lower the limit, or raise the group's (`MemoryMax=` in a systemd unit): shards count in it"
        return Check("memory", place, "wrong", f"{limits}, its control group may have {_size(group)}", mend)
    if not is_running and limit > memory["available"]:
        mend = "lower the limit, or stop what else takes memory; engines need theirs besides"
        return Check("memory", place, "warning", f"{limits}, {_size(memory['available'])} are available", mend)
    return Check("memory", place, "ok", f"{limits}, {_size(memory['available'])} of {_size(memory['total'])} available")


def judge_mesh(answer: Facts, members: Sequence[Facts]) -> Iterator[Check]:
    """`answer`: a daemon's to `doctor`; `members`: those that it lists, of any state."""
    healthy = answer["members"]
    asked = str(healthy[0]["name"])
    up = [str(member["name"]) for member in healthy]
    yield Check("members", asked, "ok", f"{len(up)} answered: {', '.join(sorted(up))}")
    for name in answer["missing"]:
        mend = "look at its host and its log; a process that is stopped or starved answers late"
        yield Check("members", str(name), "warning", "alive to the others, and gave no answer in time", mend)
    for member in members:
        if member["state"] in ("dead", "suspect"):
            mend = "start it again, or, if it is gone for good, take its key off: `dflow keys revoke`"
            yield Check("members", str(member["name"]), "warning", f"{member['state']} to {asked}", mend)
    for member in healthy:
        for problem in member["problems"]:
            yield _reported(str(member["name"]), problem)
    yield _clocks(asked, healthy, float(answer["took_s"]))
    yield from _versions(healthy)
    yield from _agreement("fabric", healthy, "trust.fabric", "chunks sealed one way cannot be read the other")
    yield from _agreement("timing", healthy, "mesh.timing", "one calls dead whom the others still wait for")
    yield from _allow_lists(healthy)
    yield from _numerics(healthy)


def _reported(name: str, problem: Facts) -> Check:
    """What a daemon says itself is wrong with it, or with a run on it."""
    passes = problem["key"] in PASSING or problem.get("level") == "warning"
    run = f"run {str(problem['run'])[:8]}: " if problem.get("run") else ""
    return Check("reported", name, "warning" if passes else "wrong", run + str(problem["what"]), str(problem["hint"]))


def _clocks(asked: str, members: Sequence[Facts], took_s: float) -> Check:
    off = {str(member["name"]): float(member["clock_off_s"]) for member in members}
    far = {name: value for name, value in off.items() if abs(value) > CLOCK_OFF_S}
    if far:
        words = {name: f"{'ahead' if value > 0 else 'behind'} by {abs(value):.0f} s" for name, value in far.items()}
        clocks = ", ".join(f"{name} {word}" for name, word in words.items())
        mend = "run a time service there (`timedatectl set-ntp true`); only logs and times in tables suffer, no result"
        return Check("clocks", asked, "warning", f"against this one: {clocks}", mend)
    return Check("clocks", asked, "ok", f"within {max(took_s, *map(abs, off.values())):.2f} s of each other")


def _versions(members: Sequence[Facts]) -> Iterator[Check]:
    for part, state, meaning in (
        ("wire", "wrong", "they do not understand each other"),
        ("plan", "warning", "runs use what all of them know"),
        ("dflowd", "warning", "as during an upgrade: finish it"),
    ):
        groups = _groups(members, lambda member, part=part: str(member["versions"][part]))
        if len(groups) > 1:
            level: State = "wrong" if state == "wrong" else "warning"
            yield Check("versions", part, level, f"{_grouped(groups)}: {meaning}", "install one release on all hosts")
    if members:
        numbers = " ".join(f"{part} {number}" for part, number in members[0]["versions"].items())
        yield Check("versions", str(members[0]["name"]), "ok", numbers)


def _agreement(key: str, members: Sequence[Facts], name: str, why: str) -> Iterator[Check]:
    groups = _groups(members, lambda member: str(member[key]))
    if len(groups) > 1:
        yield Check("configuration", name, "wrong", f"{_grouped(groups)}: {why}", f"give {name} one value on all hosts")


def _allow_lists(members: Sequence[Facts]) -> Iterator[Check]:
    """Each host has its own copy; one that was forgotten refuses a new host, or serves a key that was revoked."""
    groups = _groups(
        members, lambda member: f"{member['allow_list']['keys']} keys ({member['allow_list']['digest'][:8]})"
    )
    if len(groups) > 1:
        mend = "copy one list to all hosts, as mesh.allow_list of each; daemons take it up within a second"
        what = f"{_grouped(groups)}: who is let in by some is a stranger to others"
        yield Check("allow-list", "mesh", "warning", what, mend)
    elif members:
        yield Check("allow-list", "mesh", "ok", f"the same on all: {next(iter(groups))}")


def _numerics(members: Sequence[Facts]) -> Iterator[Check]:
    """Engines that started told their class; of the others the daemons tell what shows from outside."""
    mend = "same PyTorch, same kind of device on all hosts; else weights depend on who computed what (runs still end)"
    sure = [member for member in members if member["engines"]]
    found = False
    for source, groups in (
        ("advertised", _groups(members, lambda member: str(member["numerics"]))),
        ("tested", _groups(sure, lambda member: " / ".join(sorted(set(member["engines"]))))),
    ):
        if len(groups) > 1:
            found = True
            yield Check("numerics", source, "warning", f"{len(groups)} classes: {_grouped(groups)}", mend)
    if not found and members:
        what = f"one class: {members[0]['numerics']}"
        yield Check("numerics", "mesh", "ok", what + (f", self-tested by {len(sure)} engines' hosts" if sure else ""))


def _groups(members: Iterable[Facts], value: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for member in members:
        found.setdefault(value(member), []).append(str(member["name"]))
    return found


def _grouped(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} on {', '.join(sorted(names))}" for value, names in sorted(groups.items()))


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"
