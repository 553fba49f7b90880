"""A user's function by name: `module:function`, or `file.py:function` beside the spec.

The spec's folder is on the path while the engine works for the run, so modules beside the spec need no installation:
behind Python's own library, whose names stay Python's, and before what is installed. A module is imported by a name by
which a process that it starts can import it too, as a pool of workers does. What was imported from there is forgotten
before another run: its folder may have modules of the same names, or the same folder other code.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, TypeVar

from dflow_protocols.pipeline.files import beside as file_beside
from dflowd.data.folder import DiskFolder, at
from dflowd.jobs.failures import UserError

from . import beside

Function = Callable[..., Any]
T = TypeVar("T")

_loaded: dict[tuple[str, Path], Function] = {}
_folders: list[Path] = []  # of the run that the engine works for, one at most
_before: set[str] = set()  # modules that were there before it
OURS = ("dflowd", "dflow_protocols")  # never the user's, also where a spec lies beside them


def forget_user_code() -> None:
    """Another run begins: nothing of the last one's code is left."""
    _loaded.clear()
    for base in _folders:
        for entry in (str(base), f"{beside.MARK}{base}"):
            if entry in sys.path:
                sys.path.remove(entry)
        for name, module in list(sys.modules.items()):
            is_ours = name.partition(".")[0] in OURS and not name.startswith(f"{beside.__name__}.")
            if name not in _before and not is_ours and _is_from(module, base):
                del sys.modules[name]
    beside.__path__.clear()
    _folders.clear()


def load_function(name: str, base: Path) -> Function:
    """Raises UserError where the module cannot be imported or lacks the function."""
    if (name, base) not in _loaded:
        _open(base)
        module_name, _, attribute = name.partition(":")
        try:
            module = _contained(_import, module_name, base)
        except MemoryError:
            raise
        except BaseException as error:  # as in call_user
            raise UserError(f"{name}: {user_line(error)}") from error
        function = getattr(module, attribute, None)
        if not callable(function):
            raise UserError(f"{name}: the module has no function `{attribute}`")
        _loaded[name, base] = function
    return _loaded[name, base]


def call_user(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Call a user's function; whatever it raises comes out as UserError, naming the line."""
    try:
        return _contained(function, *args, **kwargs)
    except UserError:
        raise
    except MemoryError as error:
        raise MemoryError(user_line(error)) from error
    except BaseException as error:  # also what is no Exception: SystemExit, KeyboardInterrupt, a library's own
        raise UserError(user_line(error)) from error


def _contained(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call it; what user code does to this process beside its result is undone (its folder, its streams, a fork that
    comes back): other runs work here too."""
    process, folder, streams = os.getpid(), _own_folder(), (sys.stdout, sys.stderr)
    try:
        return function(*args, **kwargs)
    finally:
        if os.getpid() != process:
            os._exit(0)
        if _own_folder() != folder:
            os.chdir(folder)
        sys.stdout, sys.stderr = (_open_again(stream, fd) for stream, fd in zip(streams, (1, 2), strict=True))


def _own_folder() -> str:
    """This process's; the root where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _open_again(stream: TextIO, fd: int) -> TextIO:
    """The stream; if it was closed, another one to where the engine's output goes."""
    if not stream.closed:
        return stream
    try:
        os.fstat(fd)
    except OSError:
        os.dup2(1 + 2 - fd, fd)
    return open(fd, "w", buffering=1, closefd=False, errors="backslashreplace")


def user_line(error: BaseException) -> str:
    """`TYPE: text (FILE:LINE)` of the innermost line of the user's own files; of any file where there is none."""
    passed = list(traceback.extract_tb(error.__traceback__))
    frames = passed[max((at + 1 for at, frame in enumerate(passed) if frame.filename == __file__), default=0) :]
    own = [frame for frame in frames if any(Path(frame.filename).is_relative_to(base) for base in _folders)]
    blamed = (own or frames)[-1:]
    where = f" ({Path(blamed[0].filename).name}:{blamed[0].lineno})" if blamed else ""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # it is user code that runs here
        text = "its text cannot be shown"
    return f"{type(error).__name__}: {text}"[:400] + where


def _open(base: Path) -> None:
    if base in _folders:
        return
    forget_user_code()
    sys.path.insert(_behind_pythons_own(), str(base))
    sys.path.append(f"{beside.MARK}{base}")
    beside.__path__.append(str(base))
    sys.dont_write_bytecode = True  # a file changed within the second would be taken for its old bytecode
    _folders.append(base)
    _before.clear()
    _before.update(sys.modules)


def _is_from(module: ModuleType, base: Path) -> bool:
    """Whether it was found by the entry `base` of the path, and not by one deeper in it, such as an environment's."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_relative_to(base):
        return False
    return not any(Path(file).is_relative_to(entry) for entry in sys.path if entry and entry.startswith(f"{base}/"))


def _behind_pythons_own() -> int:
    """The place on the path after the standard library."""
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    own += [os.path.join(folder, "lib-dynload") for folder in own]
    return 1 + max((place for place, entry in enumerate(sys.path) if entry in own), default=-1)


def _import(module: str, base: Path) -> ModuleType:
    """The module of `file.py` or `package.module`: beside the spec if it is there, else as installed."""
    importlib.invalidate_caches()
    name = file_beside(module, DiskFolder(base))
    if name is None:
        if module.endswith(".py"):
            raise FileNotFoundError(f"no file {base / module}")
        return importlib.import_module(module)
    file = at(base, name)
    if file.is_relative_to(base) and ".." not in file.relative_to(base).parts:
        parts = file.relative_to(base).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for known in (name, f"{beside.__name__}.{name}"):
            if _leads_to(known, file):
                return importlib.import_module(known)
    return _from_file(file)


def _leads_to(name: str, file: Path) -> bool:
    """Whether an import of this name brings this file."""
    try:
        found = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):  # a part before the last is no package; or a module that says no origin
        return False
    return found is not None and found.has_location and Path(str(found.origin)) == file


def _from_file(file: Path) -> ModuleType:
    """A module of a file that no import finds: outside of the spec's folder, or with a dot in its name."""
    spec = importlib.util.spec_from_file_location(f"_beside_spec_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
