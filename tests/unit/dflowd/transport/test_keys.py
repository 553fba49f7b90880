"""Key files and allow-lists: what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_protocols.names import node_id
from dflow_protocols.wire.keys import key_text, parse_key
from dflowd.transport.keys import (
    AllowList,
    KeyFileError,
    new_key_pair,
    parse_allow_list,
    read_key_pair,
    write_key_pair,
)


def test_a_key_pair_survives_its_file_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """The key is the node's identity."""
    pair = new_key_pair()
    write_key_pair(tmp_path / "key", pair)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_key_pair(tmp_path / "key") == pair
    assert pair.id == node_id(pair.public)
    assert parse_key(pair.public_text) == pair.public
    with pytest.raises(FileExistsError):
        write_key_pair(tmp_path / "key", new_key_pair())


def test_a_secret_is_not_shown() -> None:
    """Reprs end in logs."""
    pair = new_key_pair()
    assert repr(pair.secret) not in repr(pair)


def test_a_bad_key_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """Each of these happens to people; none may end in a traceback."""
    one, two = new_key_pair(), new_key_pair()
    mixed = f"public = {key_text(one.public)}\nsecret = {key_text(two.secret)}\n"
    for name, text, mode, what in (
        ("open", "", 0o644, "other users"),
        ("empty", "", 0o600, "public"),
        ("short", "public = abc\nsecret = abc\n", 0o600, "40 characters"),
        ("mixed", mixed, 0o600, "not a pair"),
    ):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=what) as caught:
            read_key_pair(path)
        assert caught.value.hint
    with pytest.raises(KeyFileError, match="No such file"):
        read_key_pair(tmp_path / "nowhere")


def test_lists_that_let_in_the_same_keys_have_one_digest(tmp_path: Path) -> None:
    """Hosts' copies may differ in order, names and comments; who is let in, and as what, may not."""
    one, two = (key_text(new_key_pair().public) for _ in range(2))
    texts = [f"{one} a\n{two} b client\n", f"# ours\n{two} bob client\n{one} a 10.0.0.7:7300\n", f"{one} a\n{two} b\n"]
    lists = []
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_text(text)
        lists.append(AllowList(tmp_path / str(number)))
    assert lists[0].digest == lists[1].digest != lists[2].digest


def test_an_allow_list_reads_names_addresses_and_roles() -> None:
    """The list is written by hand."""
    keys = [new_key_pair().public for _ in range(4)]
    text = (
        f"# the mesh\n#comment\n\n{key_text(keys[0])} a\n{key_text(keys[1])} b 10.0.0.2:7000\n"
        f"{key_text(keys[2])} c client\n{key_text(keys[3])} d host:7000 node\n"
    )
    lines = parse_allow_list(text, "allow")
    assert list(lines) == keys
    assert [(it.name, it.address, it.role) for it in lines.values()] == [
        ("a", "", "node"),
        ("b", "10.0.0.2:7000", "node"),
        ("c", "", "client"),
        ("d", "host:7000", "node"),
    ]


@pytest.mark.parametrize(
    "line", ["KEY", "abc name", f"{'$' * 40} name", "KEY a b", "KEY a host:1 boss", "KEY a x y z", "KEY n0"]
)
def test_a_bad_line_is_named_by_its_number(line: str) -> None:
    """Who may come in is never guessed."""
    known = f"{key_text(new_key_pair().public)} n0\n"
    with pytest.raises(KeyFileError) as caught:
        parse_allow_list(known + line.replace("KEY", key_text(new_key_pair().public)), "allow")
    assert caught.value.where == "allow:2"
    assert caught.value.hint


def test_a_changed_list_counts_and_a_broken_one_leaves_the_last_good(tmp_path: Path) -> None:
    """A slip in an editor must not lock the mesh out."""
    path, one, two = tmp_path / "allow", new_key_pair(), new_key_pair()
    path.write_text(f"{one.public_text} a\n")
    allow_list = AllowList(path)
    path.write_text(f"{one.public_text} a\n{two.public_text} b\n")
    allow_list.refresh()
    assert set(allow_list.lines) == {one.public, two.public}
    path.write_text("nonsense\n")
    allow_list.refresh()
    assert set(allow_list.lines) == {one.public, two.public}
    assert allow_list.trouble is not None
    path.write_text(f"{two.public_text} b\n")
    allow_list.refresh()
    assert set(allow_list.lines) == {two.public}
    assert allow_list.trouble is None
