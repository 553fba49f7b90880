"""A user's function by name: `module:function`, or `file.py:function` beside the spec.

The spec's folder is on the path while a module is looked up, so modules beside the spec need no installation.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from dflowd.engines.contract import UserError

Function = Callable[..., Any]

_loaded: dict[tuple[str, Path], Function] = {}


def load_function(name: str, base: Path) -> Function:
    """Raises UserError where the module cannot be imported or lacks the function."""
    if (name, base) not in _loaded:
        module_name, _, attribute = name.partition(":")
        try:
            module = _from_file(base / module_name) if module_name.endswith(".py") else _from_path(module_name, base)
        except (Exception, SystemExit) as error:
            raise UserError(f"{name}: {user_line(error)}") from error
        function = getattr(module, attribute, None)
        if not callable(function):
            raise UserError(f"{name}: the module has no function `{attribute}`")
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
    """`TYPE: text (FILE:LINE)` of the innermost place outside this project."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"[:500]


def _from_path(module: str, base: Path) -> ModuleType:
    sys.path.insert(0, str(base))
    try:
        importlib.invalidate_caches()
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(base))


def _from_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_beside_spec_{file.stem}", file)
    if spec is None or spec.loader is None or not file.exists():
        raise FileNotFoundError(f"no file {file}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module
