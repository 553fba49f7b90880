"""What goes wrong between hosts of a network, inside their namespaces: cuts by `ip`, narrow links by its `tc`, loss,
lengths and ports by `nft`.

Faults strike packets from one host to another; who asks from outside (hosts.OUTSIDE) is struck by narrow links alone.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from tests.support.hosts import LONGEST_JOINED, Hosts

QUEUE_S = 0.2  # what a narrow link's queue holds, in seconds of its rate: a switch port or a home router
BURST_BYTES = 32 << 10  # of a narrow link; with joined packets two of them, as none that is longer passes whole
NOBODY = "02:00:00:00:00:01"  # the hardware address of no host


@dataclass
class Filter:
    """What one host does not hear of the others."""

    lost_percent: int = 0
    longest_bytes: int = 0  # of a packet, its IP header included; 0: any
    closed: set[int] = field(default_factory=set)  # TCP ports

    def ruleset(self, peers: Iterable[str]) -> str:
        """For `nft -f`: it takes the place of the one before. `peers`: addresses of all hosts."""
        peer = f"ip saddr {{ {', '.join(sorted(peers))} }}"
        rules = ["type filter hook input priority 0"]
        if self.lost_percent:
            rules.append(f"{peer} numgen random mod 100 < {self.lost_percent} drop")
        if self.longest_bytes:
            rules.append(f"{peer} meta length > {self.longest_bytes} drop")
        rules += [f"{peer} tcp dport {port} drop" for port in sorted(self.closed)]
        chain = "\n".join(["chain input {", *rules, "}"])
        return f"table ip faults\ndelete table ip faults\ntable ip faults {{\n{chain}\n}}\n"


class Links:
    """The links between hosts that stand. All are whole at first."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._cuts: set[tuple[str, str]] = set()
        self._filters: dict[str, Filter] = {}
        self._narrowed: set[str] = set()

    def cut_one_way(self, source: str, target: str) -> None:
        """Nothing goes from the one to the other; what the other sends arrives."""
        self._cuts.add((source, target))
        address = self._hosts.addresses[target]
        self._ip(source, "neigh", "replace", address, "lladdr", NOBODY, "nud", "permanent", "dev", "eth0")

    def cut(self, *pairs: tuple[str, str]) -> None:
        """Nothing goes between the two of each pair."""
        for one, other in pairs:
            self.cut_one_way(one, other)
            self.cut_one_way(other, one)

    def keep(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Nothing goes between two hosts that are no pair of these."""
        kept = {frozenset(pair) for pair in pairs}
        self.cut(*(pair for pair in itertools.combinations(self._hosts.addresses, 2) if frozenset(pair) not in kept))

    def split(self, near: Collection[str]) -> None:
        """Nothing goes between these hosts and the others."""
        self.cut(*((one, other) for one in near for other in self._hosts.addresses if other not in near))

    def lose(self, percent: int) -> None:
        """So many of a hundred packets are lost, each way, at random."""
        for host in self._hosts.addresses:
            self._filters.setdefault(host, Filter()).lost_percent = percent
            self._write(host)

    def drop_longer(self, nbytes: int) -> None:
        """Longer packets are lost, and nobody is told: a path whose MTU is not what its ends believe."""
        for host in self._hosts.addresses:
            self._filters.setdefault(host, Filter()).longest_bytes = nbytes
            self._write(host)

    def close(self, host: str, port: int) -> None:
        """Nothing arrives there: a firewall that drops."""
        self._filters.setdefault(host, Filter()).closed.add(port)
        self._write(host)

    def narrow(self, mbit_s: float, *names: str) -> None:
        """None of these hosts (or of all) sends or receives more; what is beyond waits for QUEUE_S, then it is lost."""
        self._narrowed.update(names or self._hosts.addresses)
        burst = 2 * LONGEST_JOINED if self._hosts.joined else BURST_BYTES
        limit = int(mbit_s * 1e6 / 8 * QUEUE_S) + burst
        shape = ["root", "tbf", "rate", f"{mbit_s:g}mbit", "burst", str(burst), "limit", str(limit)]
        for space, device in self._ends(names or self._hosts.addresses):
            _run(["tc", "-n", space, "qdisc", "replace", "dev", device, *shape])

    def heal(self) -> None:
        """All links are whole again."""
        for source, target in self._cuts:
            self._ip(source, "neigh", "del", self._hosts.addresses[target], "dev", "eth0")
        self._cuts.clear()
        healed = list(self._filters)
        self._filters.clear()
        for host in healed:
            self._write(host)
        for space, device in self._ends(self._narrowed):
            _run(["tc", "-n", space, "qdisc", "del", "dev", device, "root"])
        self._narrowed.clear()

    def _ends(self, hosts: Collection[str]) -> list[tuple[str, str]]:
        """Both ends of each host's cable: (namespace, device)."""
        bridge = self._hosts.space("net")
        near = [(self._hosts.space(host), "eth0") for host in hosts]
        return near + [(bridge, self._hosts.port(host)) for host in hosts]

    def _ip(self, host: str, *words: str) -> None:
        _run(["ip", "-n", self._hosts.space(host), *words])

    def _write(self, host: str) -> None:
        rules = self._filters.get(host, Filter()).ruleset(self._hosts.addresses.values())
        _run(["ip", "netns", "exec", self._hosts.space(host), "nft", "-f", "-"], rules)


def _run(words: list[str], typed: str = "") -> None:
    subprocess.run(words, input=typed, text=True, check=True, capture_output=True, timeout=30)
