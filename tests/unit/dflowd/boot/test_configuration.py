"""What an operator relies on in a configuration: every mistake is one line that says where, and one remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflowd.__main__ import main
from dflowd.boot.config import Config, ConfigError, load
from dflowd.boot.inspection import check

GOOD = """
[node]
name = "n0"
state_dir = "state"
[listen]
control = "tcp://127.0.0.1:7300"
bulk = "tcp://127.0.0.1:7301"
[mesh]
allow_list = "allow"
"""
KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def write(folder: Path, text: str) -> Path:
    path = folder / "dflowd.toml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str, **environment: str) -> tuple[str, str, str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, environment)
    error = caught.value
    return error.where.removeprefix(str(path)), error.what, error.hint


def test_a_short_file_is_enough_and_paths_start_from_its_folder(tmp_path: Path) -> None:
    """An operator may move a folder of configuration and state as one."""
    config = load(write(tmp_path, GOOD), {})
    assert config.node.state_dir == tmp_path / "state"
    assert config.mesh.allow_list == tmp_path / "allow"
    assert config.shards.memory_limit == 2 * 2**30


@pytest.mark.parametrize(
    ("text", "address"), [("9464", "127.0.0.1:9464"), ('"10.0.0.7:9464"', "10.0.0.7:9464"), ('"[::1]:0"', "[::1]:0")]
)
def test_a_port_alone_is_for_this_host_alone(tmp_path: Path, text: str, address: str) -> None:
    """What monitoring is told has no key, so who wants it on a network says so."""
    assert load(write(tmp_path, f"{GOOD}[observe]\nlisten = {text}\n"), {}).observe.listen == address


def test_a_package_that_lacks_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it: `observe.listen` needs an extra."""
    monkeypatch.setattr("dflowd.boot.preflight.find_spec", lambda name: None)
    path = write(tmp_path, f"{GOOD}[observe]\nlisten = 9464\n")
    with pytest.raises(ConfigError, match=r"observe.listen: the package prometheus-client is not installed") as caught:
        check(load(path, {}), path)
    assert caught.value.hint == "`pip install '.[prometheus]'`, or leave the key out"


@pytest.mark.parametrize(
    ("text", "nbytes"), [("2 GiB", 2 * 2**30), ("500MB", 500_000_000), ("1.5 GiB", 3 * 2**29), ("67108864", 2**26)]
)
def test_sizes_are_written_as_people_write_them(tmp_path: Path, text: str, nbytes: int) -> None:
    """A limit in bytes invites a wrong digit."""
    config = load(write(tmp_path, GOOD + f'[shards]\nmemory_limit = "{text}"\n'), {})
    assert config.shards.memory_limit == nbytes


def test_every_key_is_also_a_variable_which_wins(tmp_path: Path) -> None:
    """Service managers and containers set variables, not files."""
    path = write(tmp_path, GOOD)
    environment = {
        "DFLOWD_NODE_NAME": "other",
        "DFLOWD_LISTEN_CONTROL": "tcp://10.0.0.7:1",
        "DFLOWD_MESH_SEEDS": f"{KEY}@h1:7300, n7",
        "DFLOWD_SHARDS_MEMORY_LIMIT": "64 MiB",
        "DFLOWD_ENGINE_SLOTS": "3",
    }
    config = load(path, environment)
    assert (config.node.name, config.listen.control) == ("other", "tcp://10.0.0.7:1")
    assert config.mesh.seeds == (f"{KEY}@h1:7300", "n7")
    assert (config.shards.memory_limit, config.engine.slots) == (64 * 2**20, 3)
    for section, field in Config.model_fields.items():
        for key in field.annotation.model_fields:  # type: ignore[union-attr]
            variable = f"DFLOWD_{section}_{key}".upper()
            assert load_or_error(path, {variable: "\0"}) != config, variable


def load_or_error(path: Path, environment: dict[str, str]) -> object:
    try:
        return load(path, environment)
    except ConfigError as error:
        return error.where


@pytest.mark.parametrize(
    ("change", "where", "what", "hint"),
    [
        (("[node]", "[nod]"), ": node", "this section is missing", "add [node] with its keys: name, state_dir, roles"),
        (('name = "n0"', ""), ": node.name", "this key is missing", "add it under [node] or set DFLOWD_NODE_NAME"),
        (("name =", "nam ="), ": node.nam", "no such key", "did you mean `name`?"),
        (('"n0"', '"a b"'), ": node.name", "`a b` is not a node name", "use 1 to 63 letters, digits, dots and dashes"),
        (
            ("tcp://127.0.0.1:7300", "127.0.0.1:7300"),
            ": listen.control",
            "`127.0.0.1:7300` is not an address",
            "write tcp://HOST:PORT, such as tcp://10.0.0.7:7300",
        ),
        (
            ("tcp://127.0.0.1:7300", "tcp://0.0.0.0:7300"),
            ": listen.control",
            "`tcp://0.0.0.0:7300` names no host that others could dial",
            "name the address by which the other nodes reach this one",
        ),
        (
            ("tcp://127.0.0.1:7300", "tcp://[0::0]:7300"),
            ": listen.control",
            "`tcp://[0::0]:7300` names no host that others could dial",
            "name the address by which the other nodes reach this one",
        ),
        (
            ("tcp://127.0.0.1:7300", "tcp://[fe80::1%eth0]:7300"),
            ": listen.control",
            "`tcp://[fe80::1%eth0]:7300` is link-local: it means another host on each link",
            "name a global or unique-local one",
        ),
        (
            ("tcp://127.0.0.1:7300", "tcp://::1:7300"),
            ": listen.control",
            "`tcp://::1:7300` is not an address",
            "it has an IPv6 address without brackets: write [ADDRESS]:PORT",
        ),
        (
            ("7301", "7300"),
            ": listen",
            "listen.control and listen.bulk are one address",
            "give the bulk lane a port of its own",
        ),
        (
            ('"allow"', '"allow"\nseeds = ["short@h:1"]'),
            ": mesh.seeds",
            "`short@h:1` is not a seed",
            "write KEY@HOST:PORT, KEY being 40 characters, or a name of the allow-list",
        ),
        (('"allow"', '"allow"\nsedes = []'), ": mesh.sedes", "no such key", "did you mean `seeds`?"),
        (
            ('"allow"', '"allow"\ntiming = "slow"'),
            ": mesh.timing",
            "input should be 'lan', 'wan' or 'local'",
            "given: 'slow'",
        ),
        (
            ('"allow"', '"allow"\n[observe]\nlisten = "here"'),
            ": observe.listen",
            "`here` is not HOST:PORT",
            "write a port, which then listens at 127.0.0.1 alone, or HOST:PORT",
        ),
        (
            ('"allow"', '"allow"\n[shards]\nmemory_limit = "much"'),
            ": shards.memory_limit",
            "`much` is not a size",
            "write a number and a unit, such as 2 GiB or 500 MB",
        ),
    ],
)
def test_an_error_names_the_key_and_the_remedy(
    tmp_path: Path, change: tuple[str, str], where: str, what: str, hint: str
) -> None:
    """The texts are pinned: people search for them."""
    assert refused(tmp_path, GOOD.replace(*change, 1)) == (where, what, hint)


def test_an_error_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    """The file is good then, and looking there would be in vain."""
    where, what, _ = refused(tmp_path, GOOD, DFLOWD_LISTEN_BULK="nowhere")
    assert (where, what) == ("DFLOWD_LISTEN_BULK: listen.bulk", "`nowhere` is not an address")


def test_wrong_input_ends_with_two_lines_and_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts look at the status, people at the lines; a traceback serves neither."""
    for text in ("[node", GOOD.replace("7300", "73000")):
        path = write(tmp_path, text)
        assert main(["check-config", "--config", str(path)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith(f"error: {path}")
        assert lines[1].startswith("hint: ")
    assert main(["check-config", "--config", str(tmp_path / "absent")]) == 2
    assert "no such file" in capsys.readouterr().err
