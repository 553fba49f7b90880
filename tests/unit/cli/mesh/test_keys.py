"""`dflow keys`: what people do with keys and allow-lists, and what they get wrong."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from dflow_cli.app import main
from dflow_cli.mesh.keyfiles import key_pair
from dflow_cli.mesh.meshfiles import LocalNode, id_of, write_allow_list
from dflow_protocols.wire.keys import key_text, parse_allow_list, parse_key


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip()


def lines(path: Path) -> list[tuple[str, str, str]]:
    return [(line.name, line.address, line.role) for line in parse_allow_list(path.read_text()).values()]


def some_key() -> str:
    public: bytes = zmq.curve_keypair()[0]
    return public.decode()


def test_keys_are_written_as_libzmq_writes_them() -> None:
    """Whoever has another ZeroMQ program's key can use it here."""
    source = random.Random(1)
    for _ in range(200):
        key = source.randbytes(32)
        assert key_text(key) == z85.encode(key).decode()
        assert parse_key(key_text(key)) == key
    for text in ("#" * 40, "~" * 40, "a" * 39, "é" * 40):
        with pytest.raises(ValueError, match="key"):
            parse_key(text)


def test_a_clients_key_is_never_shown_as_a_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `keys show` prints is piped into allow-lists: a client must not become a member by that."""
    made = tmp_path / "ann"
    assert main(["keys", "new", str(made), "--name", "ann", "--role", "client"]) == 0
    line = told(capsys)
    assert main(["keys", "show", str(made), "--name", "ann"]) == 0
    assert told(capsys) == line
    assert line.endswith(" ann client")
    key_pair(tmp_path / "client.key")
    assert main(["keys", "show", str(tmp_path / "client.key"), "--name", "bob"]) == 0
    assert told(capsys).endswith(" bob client")


def test_a_new_key_prints_its_line_and_never_its_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line goes into mails and shell histories."""
    file = tmp_path / "key"
    assert main(["keys", "new", str(file), "--name", "a1", "--address", "10.0.0.7:7300"]) == 0
    line = told(capsys)
    pair = key_pair(file)
    assert line == f"{pair.public} a1 10.0.0.7:7300 node"
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["keys", "show", str(file), "--name", "a1", "--address", "10.0.0.7:7300"]) == 0
    assert told(capsys) == line
    assert main(["keys", "show", str(file), "--name", "a1", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["id"] == id_of(pair.public)
    assert pair.secret not in line + printed.out + printed.err


def test_a_key_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the identity of a daemon."""
    file = tmp_path / "key"
    assert main(["keys", "new", str(file), "--name", "a1"]) == 0
    before = file.read_text()
    assert main(["keys", "new", str(file), "--name", "a1"]) == 2
    assert file.read_text() == before
    assert "hint: " in capsys.readouterr().err


def test_a_client_is_let_in_by_the_line_that_its_own_key_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`keys show --dir DIR` makes the key of that folder's commands, and pipes into `authorize`."""
    assert main(["keys", "show", "--dir", str(tmp_path / "ann"), "--name", "ann"]) == 0
    line = told(capsys)
    assert line == f"{key_pair(tmp_path / 'ann' / 'client.key').public} ann client"
    monkeypatch.setattr("sys.stdin", io.StringIO(line + "\n"))
    assert main(["keys", "authorize", str(tmp_path / "allow"), "-"]) == 0
    assert lines(tmp_path / "allow") == [("ann", "", "client")]


def test_lines_are_added_and_taken_off_and_the_rest_stays_as_written(tmp_path: Path) -> None:
    """The list is also edited by hand: comments and modes are somebody's."""
    allow, one, two = tmp_path / "allow", some_key(), some_key()
    allow.write_text(f"# the mesh\n{one} a1 10.0.0.7:7300")
    allow.chmod(0o640)
    assert main(["keys", "authorize", str(allow), two, "ann", "--role", "client"]) == 0
    assert allow.read_text() == f"# the mesh\n{one} a1 10.0.0.7:7300\n{two} ann client\n"
    assert main(["keys", "authorize", str(allow), two, "ann", "--role", "client"]) == 0  # once more changes nothing
    assert main(["keys", "revoke", str(allow), "a1"]) == 0
    assert main(["keys", "revoke", str(allow), two]) == 0
    assert allow.read_text() == "# the mesh\n"
    assert allow.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("key", ["-" * 40, "--help" + "0" * 34, "-h=@" + "a" * 36, "-" + "ah" * 19 + "h"])
def test_a_key_may_look_like_an_option(tmp_path: Path, key: str) -> None:
    """One in 85 begins with a dash."""
    allow = tmp_path / "allow"
    assert main(["keys", "authorize", str(allow), key, "odd", "--role", "client"]) == 0
    assert lines(allow) == [("odd", "", "client")]
    assert main(["keys", "revoke", str(allow), key]) == 0
    assert lines(allow) == []


def test_each_mistake_is_two_lines_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip here lets a stranger in or locks a friend out."""
    allow, key, broken = tmp_path / "allow", some_key(), tmp_path / "broken"
    allow.write_text(f"{key} a1 10.0.0.7:7300 node\n")
    broken.write_text("nonsense\n")
    for words, what in (
        (["authorize", allow, "abc", "b"], "a key has 40 characters, not 3"),
        (["authorize", allow, "~" * 40, "b"], "not a Z85 key"),
        (["authorize", allow, key, "b"], "this key has a line already"),
        (["authorize", allow, some_key(), "a1"], "this name has a line already"),
        (["authorize", allow, some_key()], "a line needs a name"),
        (["authorize", allow, some_key(), "a b"], "`a b` is not a name"),
        (["authorize", allow, some_key(), "b", "--role", "boss"], "`boss` is no role"),
        (["authorize", allow, some_key(), "b", "--address", "here"], "`here` is not HOST:PORT"),
        (["authorize", allow, some_key(), "b", "--role", "client", "--address", "h:1"], "a client is never dialled"),
        (["authorize", broken, some_key(), "b"], "broken:1: 1 words"),
        (["revoke", allow, "a2"], "no line with `a2`"),
        (["revoke", tmp_path / "nowhere" / "allow", "a2"], "no such allow-list"),
        (["new", tmp_path / "key", "--name", "a", "--address", "x"], "`x` is not HOST:PORT"),
        (["show", tmp_path / "key"], "no such key file"),
    ):
        assert main(["keys", *map(str, words)]) == 2, words
        error, hint = capsys.readouterr().err.splitlines()
        assert error.startswith("error: "), words
        assert what in error
        assert hint.startswith("hint: ")
    assert allow.read_text() == f"{key} a1 10.0.0.7:7300 node\n"
    assert not (tmp_path / "key").exists()


def test_who_gives_a_whole_line_or_its_file_is_told_how_lines_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told to name it in letters and digits, one looks for the mistake in the line."""
    assert main(["keys", "authorize", str(tmp_path / "allow"), f"{some_key()} a1 10.0.0.7:7300 node"]) == 2
    assert "authorize ALLOW_LIST - < LINES" in capsys.readouterr().err


def test_a_growing_local_mesh_keeps_whom_its_owner_let_in(tmp_path: Path) -> None:
    """`dflow up --add` writes the list too; a second user must not be locked out by it, nor a revoked one let in."""
    allow, client = tmp_path / "allow", key_pair(tmp_path / "client.key")

    def node(name: str, key: str) -> LocalNode:
        return LocalNode(name, id_of(key), key, 0, "tcp://127.0.0.1:7300", "tcp://127.0.0.1:7301", "")

    first = some_key()
    write_allow_list(tmp_path, [node("n0", first), node("n1", some_key())], client)
    assert main(["keys", "authorize", str(allow), some_key(), "ann", "--role", "client"]) == 0
    assert main(["keys", "revoke", str(allow), "n1"]) == 0
    write_allow_list(tmp_path, [node("n2", some_key())], client)
    assert sorted(name for name, _, _ in lines(allow)) == ["ann", "client", "n0", "n2"]
    write_allow_list(tmp_path, [node("n0", first)], client)  # started again, at another port
    assert sorted(name for name, _, _ in lines(allow)) == ["ann", "client", "n0", "n2"]


def test_of_lines_from_standard_input_all_are_added_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that answers with an error has let nobody in."""
    allow, known = tmp_path / "allow", some_key()
    assert main(["keys", "authorize", str(allow), known, "a1"]) == 0
    before = allow.read_text()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{some_key()} b1\n{known} c1\n"))
    assert main(["keys", "authorize", str(allow), "-"]) == 2
    assert allow.read_text() == before
