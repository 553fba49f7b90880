"""How long until the last of many has a version? A swarm beside one receiver, and beside a star.

One source and up to eight receivers, each in a network namespace of its own, behind a link that sends and receives
200 Mbit/s: the lanes and stores of nodes, sealed, ids verified, without the nodes. All receivers begin at once and know
of the source alone. As a swarm they fetch a version's state, as nodes do; in the star the same bytes as a shard of any
other kind, which the source sends to each of them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import uvloop

from benchmarks.figure import Figure, Goal, Skipped, Tell
from benchmarks.micro.fetch.ours import RUN, Peer
from dflow_protocols.names import NodeId, ShardRef
from dflow_protocols.wire.keys import parse_key
from dflow_protocols.work import Product
from dflowd.transport.keys import KeyPair, new_key_pair, read_key_pair, write_key_pair
from tests.support.hosts import Hosts, lacks
from tests.support.links import Links

QUICK = {"megabytes": 54, "receivers": (1, 8)}
MOST_OF_ONE = 1.25  # times what one receiver alone takes
SOURCE = "h0"
ANSWER = "> "  # before what a host's process answers
SWARM, STAR = "swarm", "star"
PRODUCTS = {SWARM: Product.STATE, STAR: Product.OUTPUT}


async def live(folder: Path, name: str, address: str) -> None:
    """One host's process: say where it is, hear where all are, then do what each line of input says."""
    host = Peer(read_key_pair(folder / name), folder / "allow", "encrypted", address)
    loop = asyncio.get_running_loop()
    answer([host.keys.public_text, host.control_address, host.bulk_address])
    held: ShardRef | None = None
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, *fields = json.loads(line)
        said: Any = None
        if what == "meet":
            meet(host, fields)
        elif what == "make":
            held = host.put(os.urandom(fields[0]))
            said = [held.id, held.nbytes]
        elif what == "fetch":
            held, holder, product = ShardRef(*fields[0]), NodeId(fields[1]), Product(fields[2])
            await host.fetch(held, holder, product)
        elif what == "drop" and held is not None:
            host.exchange.drop(RUN, [held.id])
        elif what == "sent":
            said = sum(it.sent for it in host.exchange.traffic().values())
        answer(said)


def answer(said: Any) -> None:
    print(f"{ANSWER}{json.dumps(said)}", flush=True)


def meet(host: Peer, others: Sequence[Sequence[str]]) -> None:
    for key, control, bulk in others:
        public = parse_key(key)
        other = KeyPair(public, b"").id
        if other != host.keys.id:
            host.control.dial(other, public, control)
            host.exchange.add_peer(other, bulk)


class Member:
    """A host's process, as the benchmark speaks to it."""

    def __init__(self, hosts: Hosts, name: str, folder: Path) -> None:
        here = [sys.executable, "-m", "benchmarks.weights", str(folder), name, hosts.addresses[name]]
        command = ["ip", "netns", "exec", hosts.space(name), *here]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.where: list[str] = self.said()
        self.id = KeyPair(parse_key(self.where[0]), b"").id

    def tell(self, *words: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps(words), file=self.process.stdin, flush=True)

    def said(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while not line.startswith(ANSWER):  # its reports go the same way
            assert line, "a host's process has ended"
            line = self.process.stdout.readline()
        return json.loads(line.removeprefix(ANSWER))

    def ask(self, *words: Any) -> Any:
        self.tell(*words)
        return self.said()

    def close(self) -> None:
        self.process.communicate("", timeout=30)


@contextmanager
def members(count: int, mbit_s: float) -> Iterator[list[Member]]:
    """Processes that know each other, on hosts whose links are that narrow. The first is the source."""
    addresses = {f"h{index}": f"10.0.0.{10 + index}" for index in range(count)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = stack.enter_context(Hosts(addresses, joined=True))
        keys = {name: new_key_pair() for name in addresses}
        for name, pair in keys.items():
            write_key_pair(folder / name, pair)
        (folder / "allow").write_text("".join(f"{pair.public_text} {name}\n" for name, pair in keys.items()))
        found = [Member(hosts, name, folder) for name in addresses]
        for member in found:
            stack.callback(member.close)
        for member in found:
            member.ask("meet", *(other.where for other in found))
        Links(hosts).narrow(mbit_s)
        yield found


@dataclass(frozen=True, slots=True)
class Spread:
    """One time that a version went to so many."""

    seconds: float
    sent: float  # by the source, in versions


def spread(source: Member, receivers: Sequence[Member], ref: Sequence[Any], way: str) -> Spread:
    before, began = source.ask("sent"), time.perf_counter()
    for receiver in receivers:
        receiver.tell("fetch", ref, source.id, int(PRODUCTS[way]))
    for receiver in receivers:
        receiver.said()
    took = time.perf_counter() - began
    sent = (source.ask("sent") - before) / ref[1]
    for receiver in receivers:
        receiver.ask("drop")
    return Spread(took, sent)


def measure(
    tell: Tell,
    *,
    megabytes: Annotated[int, "of the version, in millions of bytes"] = 540,
    receivers: Annotated[tuple[int, ...], "how many, one size after the other"] = (1, 2, 4, 8),
    mbit_s: Annotated[float, "of each host's link, each way"] = 200.0,
    rounds: Annotated[int, "of all sizes and both ways"] = 1,
) -> list[Figure]:
    why = lacks("tc")
    if why:
        raise Skipped(why)
    found: dict[tuple[str, int], list[Spread]] = {}
    with members(1 + max(receivers), mbit_s) as (source, *others):
        ref = source.ask("make", megabytes * 1_000_000)
        turns = itertools.product(range(rounds), sorted({1, *receivers}), PRODUCTS)
        for _, count, way in turns:
            seen = spread(source, others[:count], ref, way)
            found.setdefault((way, count), []).append(seen)
            tell({"receivers": count, "way": way, "seconds": round(seen.seconds, 2), "sent": round(seen.sent, 2)})
    return figures(found, sorted(receivers))


def figures(found: dict[tuple[str, int], list[Spread]], receivers: Sequence[int]) -> list[Figure]:
    took = {key: statistics.median(each.seconds for each in seen) for key, seen in found.items()}
    sent = {key: statistics.median(each.sent for each in seen) for key, seen in found.items()}
    one = took[SWARM, 1]
    rows = []
    for count in receivers:
        swarm, star, goal = took[SWARM, count], took[STAR, count], Goal(MOST_OF_ONE) if count > 1 else None
        rows += [
            Figure(f"until the last of {count} has it", "s", swarm, "one receiver", one, goal),
            Figure(f"until the last of {count} has it, beside a star", "s", swarm, "star", star),
            Figure(f"sent by the source to {count}", "versions", sent[SWARM, count], "star", sent[STAR, count]),
        ]
    return rows


if __name__ == "__main__":
    uvloop.run(live(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
