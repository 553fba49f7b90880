"""HOST:PORT as people write it: one meaning, one spelling, and what is none is told before it is dialled."""

from __future__ import annotations

import pytest

from dflow_protocols.wire.endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("10.0.0.7:7300", "10.0.0.7:7300"),
        ("tcp://a1.site:7300", "a1.site:7300"),
        ("[::1]:7300", "[::1]:7300"),
        ("tcp://[2001:DB8:0:0::7]:7300", "[2001:db8::7]:7300"),
        ("[fe80::1%eth0]:07300", "[fe80::1%eth0]:7300"),
        ("[::ffff:10.0.0.7]:0", "[::ffff:a00:7]:0"),
    ],
)
def test_an_endpoint_has_one_spelling(text: str, spelt: str) -> None:
    """What is compared as text, such as a line of the allow-list and an address that is listened on, must be alike."""
    assert str(parse_endpoint(text)) == spelt
    assert str(parse_endpoint(parse_endpoint(text).url)) == spelt


NO_ENDPOINTS = (
    "",
    "h",
    "h:",
    ":1",
    "h:65536",
    "h:-1",
    "h:x",
    "h h:1",
    "h:1:2",
    "h:\u0661",
    "::1:7300",
    "2001:db8::7:7300",
    "[::1]",
    "[::1:1",
    "::1]:1",
    "[::g]:1",
    "[10.0.0.7]:1",
    "10.0.0.300:1",
    "10.0.0:1",
)


@pytest.mark.parametrize("text", NO_ENDPOINTS)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    """A text that libzmq would take for something else, or refuse when it is dialled hours later."""
    with pytest.raises(ValueError, match=r"is not HOST:PORT|without brackets|has no IPv[46] address"):
        parse_endpoint(text)


def test_addresses_that_nobody_else_can_dial_are_told_apart() -> None:
    """Each is a mistake in `listen`, and for the same reason in both families."""
    assert parse_endpoint("0.0.0.0:1").is_unspecified
    assert parse_endpoint("[0::0]:1").is_unspecified
    assert parse_endpoint("[fe80::1%eth0]:1").is_link_local
    assert parse_endpoint("localhost:1").is_loopback
    assert parse_endpoint("127.8.0.1:1").is_loopback
    assert parse_endpoint("[0:0:0:0:0:0:0:1]:1").is_loopback
    assert not parse_endpoint("a1:1").is_loopback
