"""Who this daemon is and whom it asks first: its key pair and its seeds, as its configuration names them."""

from __future__ import annotations

from pathlib import Path

from dflow_protocols.membership.bootstrap import Seed
from dflow_protocols.wire.endpoint import parse_endpoint
from dflow_protocols.wire.keys import KEY_CHARACTERS, parse_key

from ..transport.keys import AllowList, KeyPair, new_key_pair, read_key_pair, write_key_pair
from .config import Config, ConfigError


def open_keys(config: Config, state_dir: Path) -> KeyPair:
    """The node's key pair; one in the state directory is made when it is missing. Raises KeyFileError."""
    if config.trust.key_file is not None:
        return read_key_pair(config.trust.key_file)
    path = state_dir / "key"
    if not path.exists():
        write_key_pair(path, new_key_pair())
    return read_key_pair(path)


def find_seeds(config: Config, path: Path, allow_list: AllowList) -> tuple[Seed, ...]:
    """Seeds as membership takes them; names are looked up in the allow-list. Raises ConfigError."""
    seeds = []
    for text in config.mesh.seeds:
        if len(text) > KEY_CHARACTERS and text[KEY_CHARACTERS] == "@":
            key, address = text[:KEY_CHARACTERS], text[KEY_CHARACTERS + 1 :]
            try:
                seeds.append(Seed(parse_key(key), parse_endpoint(address).url))
            except ValueError as error:
                raise ConfigError(f"{path}: mesh.seeds", f"`{text}`: {error}", "copy the key as it is listed") from None
            continue
        line = allow_list.named(text)
        if line is None or not line.address:
            what = f"`{text}` has no line with an address in {config.mesh.allow_list}"
            raise ConfigError(f"{path}: mesh.seeds", what, "write KEY@HOST:PORT, or add the address to its line")
        seeds.append(Seed(line.public, f"tcp://{line.address}"))
    return tuple(seeds)
