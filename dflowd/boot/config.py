"""The daemon's configuration: one model a section of the TOML file, a docstring under each key.

A key is also the environment variable DFLOWD_<SECTION>_<KEY>, which wins over the file. What can be derived is no key.
Owns what a value may look like; whether a file or a port is really there is asked by the rooms that open it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from dflow_protocols.pipeline.grammar.engines import ENGINES
from dflow_protocols.wire.endpoint import SCHEME, parse_endpoint
from dflow_protocols.wire.keys import KEY_CHARACTERS

ENVIRONMENT_PREFIX = "DFLOWD_"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?")
LOOPBACK = "127.0.0.1"
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_UNITS |= {"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class ConfigError(Exception):
    """The configuration cannot be used. Shown as `error: WHERE: what` and `hint: remedy`."""

    def __init__(self, where: str, what: str, hint: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what, self.hint = where, what, hint


class HostError(ConfigError):
    """The host is not as the configuration wants it, and may be later with the same one: a disk that is full, an
    address that is taken or not there yet."""


def _wrong(what: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("dflowd", "{what}", {"what": what, "hint": hint})


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise _wrong(f"`{value}` is not a size", "write a number and a unit, such as 2 GiB or 500 MB")
    return int(float(match[1]) * _UNITS[match[2] or "B"])


def _address(value: Any) -> Any:
    text = str(value)
    hint = "write tcp://HOST:PORT, such as tcp://10.0.0.7:7300"
    if not text.startswith(SCHEME):
        raise _wrong(f"`{text}` is not an address", hint)
    try:
        found = parse_endpoint(text[:-1] + "0" if text.endswith(":*") else text)
    except ValueError as error:
        raise _wrong(f"`{text}` is not an address", hint if "HOST:PORT" in str(error) else f"it {error}") from None
    if found.is_unspecified:
        raise _wrong(
            f"`{text}` names no host that others could dial", "name the address by which the other nodes reach this one"
        )
    if found.is_link_local:
        raise _wrong(f"`{text}` is link-local: it means another host on each link", "name a global or unique-local one")
    return found.url


def _is_seed(text: str) -> bool:
    key, separator, place = text[:KEY_CHARACTERS], text[KEY_CHARACTERS : KEY_CHARACTERS + 1], text[41:]
    if len(key) != KEY_CHARACTERS or separator != "@":
        return _NAME.fullmatch(text) is not None
    try:
        return not place.startswith(SCHEME) and parse_endpoint(place).port > 0
    except ValueError:
        return False


def _listening(value: Any) -> Any:
    text = str(value)
    text = f"{LOOPBACK}:{text}" if text.isdigit() else text
    try:
        return str(parse_endpoint(text))
    except ValueError as error:
        hint = f"write a port, which then listens at {LOOPBACK} alone, or HOST:PORT"
        raise _wrong(f"`{value}` {error}", hint) from None


def _words(value: Any) -> Any:
    """A list given as one text, as environment variables are."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(_size)]
Address = Annotated[str, BeforeValidator(_address)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSection(Section):
    """Who this daemon is."""

    name: str
    """What people call this node in tables and logs: letters, digits, dot, dash; unique in the mesh by convention."""

    state_dir: Path
    """Folder of what must outlive the process: key, incarnation, peers, runs, checkpoints. One daemon at a time, and
    only on the machine where it was made. Relative paths start from the configuration file's folder."""

    roles: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Words that this node offers to stages with `requires`, such as `sandbox` where a tool is installed. `trainer`,
    `cpu` or `gpu`, and `vllm` where it is installed, are offered without being named."""

    @field_validator("name")
    @classmethod
    def _short(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise _wrong(f"`{value}` is not a node name", "use 1 to 63 letters, digits, dots and dashes")
        return value

    @field_validator("roles")
    @classmethod
    def _plain(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _NAME.fullmatch(value):
                raise _wrong(f"`{value}` is not a role", "use 1 to 63 letters, digits, dots and dashes")
            if value in ENGINES:
                raise _wrong(f"`{value}` is an engine, which a node offers where it is installed", "leave it out")
        return values


class ListenSection(Section):
    """Where the two lanes listen. Other nodes dial these addresses, so they name a host that others can reach."""

    control: Address
    """Control lane (membership, claims, records, clients): tcp://HOST:PORT. Port 0 takes a free one; the one that was
    taken is written to address.json in the state directory."""

    bulk: Address
    """Bulk lane (shards, weights): tcp://HOST:PORT, another port than the control lane's."""


class MeshSection(Section):
    """Whom this daemon joins and how patient it is."""

    allow_list: Path
    """File with the public keys that may speak to this node, a line each: `KEY name [host:port] [role]`. Read again
    when it changes. Who is not listed gets no byte."""

    seeds: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Nodes to join through: `KEY@HOST:PORT`, or the name of a line of the allow-list that has an address. Any one
    that answers is enough, and none needs to: they are asked for ever, so the order of starts does not matter."""

    timing: Literal["lan", "wan", "local"] = "lan"
    """How fast silence is held to be death: `lan` for one site, `wan` for links with delay, `local` for a mesh on one
    machine."""

    leave_timeout_s: float = Field(default=10.0, ge=0.0, le=3600.0)
    """Seconds within which a daemon that is asked to stop has ended; all but the last one and a half are for handing
    over what only it holds. A second SIGTERM, 0.3 s after the first one or later, ends it at once. Raise it where
    checkpoints or shards are large."""

    @field_validator("seeds")
    @classmethod
    def _dialable(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _is_seed(value):
                raise _wrong(
                    f"`{value}` is not a seed",
                    f"write KEY@HOST:PORT, KEY being {KEY_CHARACTERS} characters, or a name of the allow-list",
                )
        return values


class TrustSection(Section):
    """Keys and the network's trust."""

    key_file: Path | None = None
    """CURVE key pair of this node. Without it `key` in the state directory is used, and made at the first start."""

    fabric: Literal["encrypted", "trusted"] = "encrypted"
    """`encrypted` seals every chunk of the bulk lane by AES-GCM; `trusted` only authenticates it, which is faster, on
    networks where nobody listens. The same on all nodes of a mesh."""

    run_code: bool = False
    """Whether code that came with a pipeline over the wire may run on this host, as the daemon's user. Who is on the
    allow-list can have it run anything then. Code that lies here under the pipeline's own path needs no leave."""


class ShardsSection(Section):
    """Room for what stages hand to each other: shared memory, and disk behind it."""

    memory_limit: Bytes = 2 * 2**30
    """Most shared memory that shards may take, such as `8 GiB`. A trainer uses about 30 bytes a parameter, and 16 more
    while another one is late; what does not fit goes to disk."""

    disk_limit: Bytes | None = None
    """Most of the state directory's disk that shards may take when memory is full. Without it: as much as leaves
    256 MiB free. `0`: none; then a trainer that finds no memory waits for some, and 60 bytes a parameter are safe."""

    @field_validator("memory_limit")
    @classmethod
    def _useful(cls, value: int) -> int:
        if value < 16 * 2**20:
            raise _wrong(f"{value} bytes hold no step", "give at least 16 MiB")
        return value


class FilesSection(Section):
    """Files of pipelines that came by wire."""

    cache_limit: Bytes = 20 * 2**30
    """Most of the state directory's disk that they may take. What active runs use stays; of the rest the longest
    unused goes first. A model that is pushed has to fit."""


class EngineSection(Section):
    """The children that hold models."""

    slots: int | None = Field(default=None, ge=1, le=64)
    """Engine children on this machine; without it one for each GPU, or one where there is none. Two children on one
    device only wait for each other."""

    host_slots: int | None = Field(default=None, ge=0, le=8)
    """Children for work on shards alone (sums of gradients, updates, reading checkpoints), which then never holds a
    GPU's slot. They load no model. Without it one where there is a GPU and none where there is none: there slots and
    updates would share the same cores. Others are told of `slots` alone."""

    host_threads: int | None = Field(default=None, ge=1, le=256)
    """Threads that sums of gradients and optimizer updates are shared between; without it one for each core that this
    daemon may use, at most 8, which is where memory is the bound. Any number makes the same bytes; fewer leave cores
    to others."""

    silence_s: float = Field(default=15.0, ge=1.0, le=3600.0)
    """Seconds without a heartbeat after which an engine is held to be dead, killed and started again. Heartbeats come
    from a thread of their own, so a long computation is no silence."""

    stall_s: float = Field(default=300.0, ge=1.0, le=86400.0)
    """Seconds without progress after which a call is held to be hung, and killed. Every call tells its progress, at
    least every few seconds: passes, samples, entries, chunks; while a library opens a model, that the process computes
    or moves bytes. It is also what the import of a user's function may take, and a call of an operator of the user's
    own; a reward has a limit of its own, `timeout_s`."""

    reward_workers: int | None = Field(default=None, ge=1, le=1024)
    """Processes at once, on this machine, that run users' rewards and operators; they are shared between the slots, and
    each slot has at least one. Without it one for each core beyond one a slot. They are started when a function is slow
    enough that others wait for it."""

    reward_memory: Bytes = 8 * 2**30
    """Most memory of its own that such a process, and each that it starts, may take: beyond it Python raises
    MemoryError in the function. Raise it for a reward that loads a large model."""

    @field_validator("reward_memory")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value < 256 * 2**20:
            raise _wrong(f"{value} bytes hold no Python with its modules", "give at least 256 MiB")
        return value


class ObserveSection(Section):
    """What is kept of runs for people, and told to monitoring."""

    listen: Annotated[str | None, BeforeValidator(_listening)] = None
    """Where `/metrics` (for Prometheus) and `/healthz` are served over plain HTTP, to whoever may reach it: a port, at
    the loopback address alone, or HOST:PORT; port 0 takes a free one, which `exporter.listening` tells. Without it
    nowhere. Needs the package prometheus-client: `pip install '.[prometheus]'`."""

    history_limit: Bytes = 2**30
    """Most bytes of the state directory's disk for what runs gave for people to read (figures, samples, tasks and what
    steps cost), of all runs together; one may have a quarter. Past that the oldest lines of a run go, and what the
    oldest runs have. Written within a second, never waited for."""

    @field_validator("history_limit")
    @classmethod
    def _some_steps(cls, value: int) -> int:
        if value < 16 * 2**20:
            raise _wrong(f"{value} bytes hold few steps", "give at least 16 MiB")
        return value


class LogSection(Section):
    """Where reports go."""

    file: Path | None = None
    """File that lines are appended to; without it they go to standard error."""

    format: Literal["text", "json"] = "text"
    """`text`: a line a report, for people. `json`: an object a line with the same fields, for what collects logs;
    `dflow logs` reads either."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""

    max_bytes: Bytes = 64 * 2**20
    """Most bytes of one file; then it is renamed to FILE.1, FILE.1 to FILE.2 and so on, and a new one begun. The
    daemon does this itself: no logrotate is needed, and no signal makes it open the file again."""

    keep: int = Field(default=4, ge=0, le=100)
    """Older files that are kept beside the current one."""

    @field_validator("max_bytes")
    @classmethod
    def _some_lines(cls, value: int) -> int:
        if value < 64 * 2**10:
            raise _wrong(f"{value} bytes hold few lines", "give at least 64 KiB")
        return value


class Config(Section):
    """The whole file."""

    node: NodeSection
    listen: ListenSection
    mesh: MeshSection
    trust: TrustSection = TrustSection()
    shards: ShardsSection = ShardsSection()
    files: FilesSection = FilesSection()
    engine: EngineSection = EngineSection()
    observe: ObserveSection = ObserveSection()
    log: LogSection = LogSection()

    @field_validator("listen")
    @classmethod
    def _two_lanes(cls, value: ListenSection, _: ValidationInfo) -> ListenSection:
        if value.control == value.bulk and not value.control.endswith((":0", ":*")):
            raise _wrong("listen.control and listen.bulk are one address", "give the bulk lane a port of its own")
        return value


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Read and check a configuration file, environment variables over it; relative paths become absolute.

    Raises ConfigError, which names the file or the variable, the key and the remedy.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(str(path), "no such file", "give the path of a TOML file with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}", "check its owner and mode") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not TOML: {error}", "text values stand in double quotes") from None
    from_environment = _overlay(tables, environment)
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        raise _explain(path, error, from_environment) from None
    return _rooted(config, path.resolve().parent)


def _overlay(tables: dict[str, Any], environment: Mapping[str, str]) -> set[tuple[str, str]]:
    """Put DFLOWD_<SECTION>_<KEY> variables into `tables`; returns which keys came from there."""
    taken = set()
    for section_name in Config.model_fields:
        for key in _keys(section_name):
            text = environment.get(_variable(section_name, key))
            if text is not None and isinstance(tables.setdefault(section_name, {}), dict):
                tables[section_name][key] = text
                taken.add((section_name, key))
    return taken


def _keys(section: str) -> list[str]:
    model = Config.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return list(model.model_fields)


def _variable(section: str, key: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{section}_{key}".upper()


def _explain(path: Path, error: ValidationError, from_environment: set[tuple[str, str]]) -> ConfigError:
    mistakes = error.errors(include_url=False)
    misspelt = [one for one in mistakes if one["type"] == "extra_forbidden" and len(one["loc"]) > 1]
    first = (misspelt or mistakes)[0]  # a key that is misspelt is why another one is missing
    place = tuple(str(part) for part in first["loc"])
    key = ".".join(place[:2])
    where = f"{path}: {key}"
    if place[:2] in from_environment:
        where = f"{_variable(*place[:2])}: {key}"
    match first["type"]:
        case "dflowd":
            return ConfigError(where, first["ctx"]["what"], first["ctx"]["hint"])
        case "missing" if len(place) == 1:
            return ConfigError(where, "this section is missing", f"add [{key}] with its keys: {', '.join(_keys(key))}")
        case "missing":
            return ConfigError(
                where, "this key is missing", f"add it under [{place[0]}] or set {_variable(*place[:2])}"
            )
        case "extra_forbidden":
            return ConfigError(where, "no such key", _nearest(place))
    return ConfigError(where, first["msg"][:1].lower() + first["msg"][1:], f"given: {str(first['input'])[:80]!r}")


def _nearest(place: tuple[str, ...]) -> str:
    known = _keys(place[0]) if len(place) > 1 else list(Config.model_fields)
    close = difflib.get_close_matches(place[-1], known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}"


def _rooted(config: Config, folder: Path) -> Config:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    return config.model_copy(
        update={
            "node": config.node.model_copy(update={"state_dir": absolute(config.node.state_dir)}),
            "mesh": config.mesh.model_copy(update={"allow_list": absolute(config.mesh.allow_list)}),
            "trust": config.trust.model_copy(update={"key_file": absolute(config.trust.key_file)}),
            "log": config.log.model_copy(update={"file": absolute(config.log.file)}),
        }
    )
