"""`dflowd run --config FILE` runs a daemon; `dflowd check-config --config FILE` only reads its configuration."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .process.stopping import StopSignals

if TYPE_CHECKING:
    from .boot.config import Config

EXIT_HOST, EXIT_INPUT = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """The process's exit status: 0, 1 for what another start may find mended, such as a full disk or a fault of the
    daemon's own, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="dflowd", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "run a daemon"), ("check-config", "check a configuration and exit")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, help="TOML file; see docs/reference/config.md")
    command.add_argument("--json", action="store_true", help="print what was found as one JSON object")
    _fill_streams()
    options = parser.parse_args(arguments)
    signals = StopSignals() if options.command == "run" else None  # imports take a second on a busy host
    from .boot.config import ConfigError, HostError, load
    from .state.directory import StateError
    from .transport.keys import KeyFileError

    try:
        config = load(options.config, os.environ)
        if signals is not None:
            _run(config, options.config, signals)
        else:
            _check(config, options.config, options.json)
    except HostError as error:
        return _refuse(error.where, error.what, error.hint, EXIT_HOST)
    except (ConfigError, KeyFileError) as error:
        return _refuse(error.where, error.what, error.hint)
    except OSError as error:  # a disk that fails, or a limit that is reached, while it starts
        where = f"{error.filename or options.config}"
        return _refuse(where, str(error.strerror or error), "see `dflow doctor`", EXIT_HOST)
    except StateError as error:
        status = EXIT_HOST if error.may_pass else EXIT_INPUT
        return _refuse(f"{options.config}: node.state_dir", error.what, error.hint, status)
    return 0


def _check(config: Config, path: Path, as_json: bool) -> None:
    from .boot.inspection import check, inspect

    if as_json:
        print(json.dumps(inspect(config, path)))
    else:
        check(config, path)
        print(f"{path}: good")


def _run(config: Config, path: Path, signals: StopSignals) -> None:
    import uvloop

    from .daemon import Daemon

    async def live() -> None:
        code = await Daemon(config, path, signals).run()
        sys.stderr.flush()
        os._exit(code)  # the rest only waits for what libraries began, such as a name server's answer

    uvloop.run(live())


def _fill_streams() -> None:
    """A descriptor that is closed would be the next socket's, and what is printed would go there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _refuse(where: str, what: str, hint: str, status: int = EXIT_INPUT) -> int:
    print(f"error: {where}: {what}\nhint: {hint}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
