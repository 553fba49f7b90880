"""Bytes of others are never run: nothing is unpickled, evaluated, or loaded as an object."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.tidy.sources import all_package_files, imports, shown, tree

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
RUNNERS = {"eval", "exec"}


@pytest.mark.parametrize("path", all_package_files(), ids=shown)
def test_nothing_turns_bytes_into_code(path: Path) -> None:
    """A checkpoint, a message or a spec of somebody else may be read, and must not be able to act."""
    for name, line in imports(path):
        assert name.partition(".")[0] not in UNPICKLERS, f"{shown(path)}:{line} imports {name}"
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            assert called.id not in RUNNERS, f"{shown(path)}:{node.lineno} calls {called.id}"
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            whole = f"{called.value.id}.{called.attr}"
            if whole in ("torch.load", "np.load", "numpy.load", "yaml.load"):
                safe = {keyword.arg for keyword in node.keywords}
                assert safe & {"weights_only", "allow_pickle", "Loader"}, f"{shown(path)}:{node.lineno}: {whole}"
