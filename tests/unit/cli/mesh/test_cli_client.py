"""The client's promises: it asks whoever is left, and says plainly when nobody is."""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Thread

import pytest
import zmq

from dflow_cli.errors import EXIT_NO_DAEMON, EXIT_WRONG_INPUT, CliError, explain
from dflow_cli.mesh.client import Client, KeyedEndpoint, parse_keyed_endpoint
from dflow_cli.mesh.keyfiles import key_pair
from dflow_cli.mesh.reach import meet, reach
from tests.unit.cli.fakedaemon import FakeDaemon, Refusal, new_keys


def test_an_answer_comes_back_whole() -> None:
    """Params and values are maps of anything msgpack can say, bytes included."""
    with FakeDaemon({"echo": lambda params: params}) as daemon, Client([daemon.endpoint], new_keys()) as client:
        assert client.call("echo", {"spec": b"\0\1", "n": 3, "f": 0.5}) == {"spec": b"\0\1", "n": 3, "f": 0.5}


def test_a_dead_daemon_is_passed_over() -> None:
    """Nothing may depend on the daemon that was named first."""
    with FakeDaemon({"status": lambda _: {"name": "second"}}) as second:
        first = FakeDaemon({})
        with first:
            pass
        with Client([first.endpoint, second.endpoint], new_keys()) as client:
            assert client.call("status") == {"name": "second"}
            assert client.endpoints[0] == second.endpoint


def test_a_daemon_that_dies_while_it_is_asked_is_passed_over_at_once() -> None:
    """A long poll must not be waited for when its daemon was killed: the deadline here is beyond the test's own."""
    with (
        FakeDaemon({"wait": lambda _: {"state": "finished"}}) as second,
        FakeDaemon({}) as first,
        Client([first.endpoint, second.endpoint], new_keys()) as client,
    ):
        first.dies_when_asked = True
        assert client.call("wait", deadline_s=3600.0) == {"state": "finished"}
        assert first.asked == [("wait", {})]


def test_a_silent_daemon_is_passed_over_after_its_deadline() -> None:
    """A daemon that takes a request and never answers must not hang the command."""
    with (
        FakeDaemon({}) as silent,
        FakeDaemon({"status": lambda _: {"name": "other"}}) as other,
        Client([silent.endpoint, other.endpoint], new_keys()) as client,
    ):
        assert client.call("status", deadline_s=0.1) == {"name": "other"}


def test_no_daemon_at_all_is_exit_code_3_and_names_whom_it_asked() -> None:
    """The contract for scripts: 3 means that no daemon answered."""
    with FakeDaemon({}) as daemon:
        endpoint = daemon.endpoint
    with Client([endpoint], new_keys()) as client, pytest.raises(CliError) as caught:
        client.call("status")
    assert caught.value.exit_code == EXIT_NO_DAEMON
    assert endpoint.address in explain(caught.value)


def test_a_daemon_that_is_there_and_silent_is_told_from_one_that_is_gone() -> None:
    """After an upgrade of the client the daemons of before refuse its words, and only their log says so."""
    with (
        FakeDaemon({}) as silent,
        Client([silent.endpoint], new_keys()) as client,
        pytest.raises(CliError) as caught,
    ):
        client.call("status", deadline_s=0.1)
    assert "said nothing" in caught.value.what
    assert "another wire version" in caught.value.what


def test_another_server_key_gets_no_answer() -> None:
    """An endpoint names the daemon's key: whoever else listens at that address is nobody."""
    with FakeDaemon({"status": lambda _: {}}) as daemon:
        stranger = KeyedEndpoint(new_keys().public, daemon.endpoint.address)
        with Client([stranger], new_keys()) as client, pytest.raises(CliError) as caught:
            client.call("status")
    assert caught.value.exit_code == EXIT_NO_DAEMON
    assert "has another key than KEY" in caught.value.what


def test_a_program_that_is_no_daemon_is_told_from_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was mistyped often is another program's, which takes the connection and waits for its own words."""
    monkeypatch.setattr("dflow_cli.mesh.client.LINK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = KeyedEndpoint(new_keys().public, f"tcp://127.0.0.1:{other.getsockname()[1]}")
        with Client([endpoint], new_keys()) as client, pytest.raises(CliError) as caught:
            client.call("status")
    assert caught.value.exit_code == EXIT_NO_DAEMON
    assert "said nothing" in caught.value.what


def test_a_daemon_that_ends_in_the_handshake_is_not_said_to_have_another_key_for_sure() -> None:
    """By the socket's events it cannot be told from one whose key is another."""
    with socket.create_server(("127.0.0.1", 0)) as ending:

        def take() -> None:
            ending.accept()[0].close()

        taking = Thread(target=take)
        taking.start()
        endpoint = KeyedEndpoint(new_keys().public, f"tcp://127.0.0.1:{ending.getsockname()[1]}")
        with Client([endpoint], new_keys()) as client, pytest.raises(CliError) as caught:
            client.call("status")
        taking.join()
    assert "or one that is ending" in caught.value.what


def test_a_daemons_refusal_arrives_as_its_own_words() -> None:
    """What, hint and exit code are the daemon's; the client adds nothing."""

    def refuse(_: object) -> dict[str, str]:
        raise Refusal("no run begins with `abcd`", "`dflow ps` lists them", 2)

    with (
        FakeDaemon({"run": refuse}) as daemon,
        Client([daemon.endpoint], new_keys()) as client,
        pytest.raises(CliError) as caught,
    ):
        client.call("run", {"run": "abcd"})
    assert explain(caught.value) == "error: no run begins with `abcd`\nhint: `dflow ps` lists them"
    assert caught.value.exit_code == EXIT_WRONG_INPUT


def test_a_daemon_that_knows_less_than_others_is_not_the_last_word() -> None:
    """One that has just joined has not heard of the run; whom it names is asked before the user is told so."""

    def unknown(_: object) -> dict[str, str]:
        raise Refusal("no run `abcd` is known here", "list runs with `dflow ps`", 2, elsewhere=True)

    with FakeDaemon({"run": unknown}) as fresh, FakeDaemon({"run": lambda _: {"state": "done"}}) as old:
        with Client([fresh.endpoint, old.endpoint], new_keys()) as client:
            assert client.call("run", {"run": "abcd"}) == {"state": "done"}
            assert client.endpoints[0] == old.endpoint
        fresh.answers["nodes"] = lambda _: {"nodes": [fresh.member("fresh"), old.member("old")]}
        with Client([fresh.endpoint], new_keys()) as client:
            assert client.call("run", {"run": "abcd"}) == {"state": "done"}
        old.answers |= {"run": unknown, "nodes": lambda _: {"nodes": [old.member("old")]}}
        with (
            Client([fresh.endpoint, old.endpoint], new_keys()) as client,
            pytest.raises(CliError, match="no run `abcd`"),
        ):
            client.call("run", {"run": "abcd"})


def test_daemons_met_once_are_asked_when_the_one_named_by_to_is_gone(tmp_path: Path) -> None:
    """`--to KEY@HOST:PORT` names one daemon; a later command must reach the mesh without it."""
    with FakeDaemon({"status": lambda _: {"name": "b"}}) as second:
        with FakeDaemon({}) as first:
            first.answers["nodes"] = lambda _: {"nodes": [first.member("a"), second.member("b")]}
            with reach(tmp_path, str(first.endpoint)) as client:
                meet(client, tmp_path, client.call("nodes")["nodes"])
        with reach(tmp_path, str(first.endpoint)) as client:
            assert client.call("status") == {"name": "b"}


def test_daemons_of_another_mesh_are_never_asked_instead(tmp_path: Path) -> None:
    """An answer of the wrong mesh would be worse than none."""
    with FakeDaemon({"nodes": lambda _: {"nodes": []}, "status": lambda _: {}}) as other:
        with reach(tmp_path, str(other.endpoint)) as client:
            meet(client, tmp_path, [other.member("other")])
        gone = KeyedEndpoint(new_keys().public, "tcp://127.0.0.1:1")
        with reach(tmp_path, str(gone)) as client, pytest.raises(CliError) as caught:
            client.call("status")
    assert caught.value.exit_code == EXIT_NO_DAEMON


def test_an_endpoint_is_read_though_its_key_holds_the_separators() -> None:
    """Z85 has `@` and `:` among its digits."""
    key = "a@b:c" * 8
    assert parse_keyed_endpoint(f"{key}@10.0.0.7:7300") == KeyedEndpoint(key, "tcp://10.0.0.7:7300")


def test_an_ipv6_address_stands_in_brackets() -> None:
    """Without them nobody can tell where it ends and the port begins."""
    key = "k" * 40
    assert parse_keyed_endpoint(f"{key}@[0:0::1]:7300") == KeyedEndpoint(key, "tcp://[::1]:7300")
    with pytest.raises(CliError, match="without brackets"):
        parse_keyed_endpoint(f"{key}@::1:7300")


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_a_daemon_is_reached_over_ipv6_and_by_a_name_that_has_more_addresses(host: str) -> None:
    """`localhost` stands for ::1 and 127.0.0.1 where both are, and the daemon listens on one."""
    try:
        daemon = FakeDaemon({"status": lambda _: {"name": "six"}}, "[::1]" if host == "[::1]" else "127.0.0.1")
    except zmq.ZMQError:
        pytest.skip("no IPv6 here")
    with daemon:
        port = daemon.endpoint.address.rpartition(":")[2]
        with Client([KeyedEndpoint(daemon.endpoint.key, f"tcp://{host}:{port}")], new_keys()) as client:
            assert client.call("status") == {"name": "six"}


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.7:7300", "k" * 40, "k" * 40 + "@host", "k" * 40 + "@:1", "k" * 39 + "@h:1"],
)
def test_what_is_no_endpoint_is_refused_with_a_remedy(text: str) -> None:
    """Wrong input is exit code 2, two lines."""
    with pytest.raises(CliError) as caught:
        parse_keyed_endpoint(text)
    assert caught.value.exit_code == EXIT_WRONG_INPUT
    assert "KEY@HOST:PORT" in explain(caught.value)


def test_a_client_keeps_its_key_and_nobody_else_reads_it(tmp_path: Path) -> None:
    """Runs are named by their submitter's key, and the allow-list knows it."""
    made = key_pair(tmp_path / "client.key")
    assert key_pair(tmp_path / "client.key") == made
    assert (tmp_path / "client.key").stat().st_mode & 0o077 == 0
