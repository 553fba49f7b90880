"""A user's function by name: `module:function`, or `file.py:function` beside the spec.

The spec's folder is on the path while the engine works for the run, so modules beside the spec need no installation.
What was imported from there is forgotten before another run: its folder may have modules of the same names, or the
same folder other code.
"""

from __future__ import annotations

import importlib
import importlib.util
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.files import changed
from dflowd.engines.contract import HostError, UserError

Function = Callable[..., Any]

_loaded: dict[tuple[str, Path], Function] = {}
_folders: list[Path] = []  # of the run that the engine works for, one at most
_before: set[str] = set()  # modules that were there before it
OURS = ("dflowd", "dflow_protocols")  # never the user's, also where a spec lies beside them


def forget_user_code() -> None:
    """Another run begins: nothing of the last one's code is left."""
    _loaded.clear()
    for base in _folders:
        if str(base) in sys.path:
            sys.path.remove(str(base))
        for name, module in list(sys.modules.items()):
            if name not in _before and name.partition(".")[0] not in OURS and _is_from(module, base):
                del sys.modules[name]
    _folders.clear()


def check_files(pipeline: Pipeline, base: Path, which: str = "") -> None:
    """Raises HostError where a file that the spec names is not the one that the run was submitted with: two hosts of
    other code or data would make other results of one task. `which`: those under a key, or one function; else all.
    """
    for named, what in changed(pipeline, base, which):
        where = f"host {socket.gethostname()}: {named.path}: `{named.name}`"
        raise HostError(f"{where} in {base} {what}; copy the submitted one there, or submit the run again")


def load_function(name: str, base: Path, pipeline: Pipeline | None = None) -> Function:
    """Raises UserError where the module cannot be imported or lacks the function, and HostError where what was
    imported is not what `pipeline` was submitted with."""
    if (name, base) not in _loaded:
        _open(base)
        module_name, _, attribute = name.partition(":")
        try:
            module = _from_file(base / module_name) if module_name.endswith(".py") else _from_path(module_name)
        except (Exception, SystemExit) as error:
            raise UserError(f"{name}: {user_line(error)}") from error
        function = getattr(module, attribute, None)
        if not callable(function):
            raise UserError(f"{name}: the module has no function `{attribute}`")
        if pipeline is not None:
            check_files(pipeline, base, name)  # after the import: a file may be replaced at any moment
        _loaded[name, base] = function
    return _loaded[name, base]


def call_user(stage: str, function: Function, *args: Any, **kwargs: Any) -> Any:
    """Call a user's function; whatever it raises comes out as UserError, naming the line."""
    try:
        return function(*args, **kwargs)
    except (MemoryError, UserError):
        raise
    except (Exception, SystemExit) as error:
        raise UserError(user_line(error), stage) from error


def user_line(error: BaseException) -> str:
    """`TYPE: text (FILE:LINE)` of the innermost line of the user's own files; of any file where there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if any(Path(frame.filename).is_relative_to(base) for base in _folders)]
    blamed = (own or frames)[-1:]
    where = f" ({Path(blamed[0].filename).name}:{blamed[0].lineno})" if blamed else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400] + where


def _open(base: Path) -> None:
    if base in _folders:
        return
    forget_user_code()
    sys.path.insert(0, str(base))
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


def _from_path(module: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(module)


def _from_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_beside_spec_{file.stem}", file)
    if spec is None or spec.loader is None or not file.exists():
        raise FileNotFoundError(f"no file {file}")
    module = importlib.util.module_from_spec(spec)
    importlib.invalidate_caches()
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
