"""Where a lane listens, as people write it: HOST:PORT, the host a name, an IPv4 address, or an IPv6 one in brackets.

Owns what such a text may be, and its one spelling. Knows nothing of sockets and looks no name up.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

SCHEME: Final = "tcp://"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_DIGITS = re.compile(r"[0-9.]+")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`host`: a name, or an address as RFC 5952 spells it (with the zone of a link-local one), without brackets.
    `port` 0: any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{SCHEME}{self}"

    @property
    def is_numeric(self) -> bool:
        return self._address is not None

    @property
    def is_unspecified(self) -> bool:
        """Whether it stands for all addresses of a host, so that nobody can dial it."""
        return self._address is not None and self._address.is_unspecified

    @property
    def is_link_local(self) -> bool:
        """Whether it means another host on each link, so that it cannot be told to others (of IPv6)."""
        return isinstance(self._address, ipaddress.IPv6Address) and self._address.is_link_local

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return self.host == "localhost" or (self._address is not None and self._address.is_loopback)

    @property
    def _address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that HOST:PORT means, with or without `tcp://` before it. Raises ValueError: what is wrong, in
    words that follow the text."""
    host, _, port = text.removeprefix(SCHEME).rpartition(":")
    if not _PORT.fullmatch(port) or int(port) >= 1 << 16:
        raise ValueError("is not HOST:PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("has an IPv6 address without brackets: write [ADDRESS]:PORT")
    if host.startswith("["):
        return Endpoint(_ipv6(host.removeprefix("[").removesuffix("]")), int(port))
    if _DIGITS.fullmatch(host):
        return Endpoint(_ipv4(host), int(port))
    if not _NAME.fullmatch(host):
        raise ValueError("is not HOST:PORT")
    return Endpoint(host, int(port))


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError(f"has no IPv4 address: {text}") from None


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(f"has no IPv6 address: {text}") from None
