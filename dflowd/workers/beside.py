"""Modules beside a spec whose own names are taken: a `random.py` is `dflowd.operators.beside.random`.

A process that user code starts imports what it is given by these names too. It is handed our `sys.path`, so that is
where this package finds the folder of the spec that is being worked for.
"""

from __future__ import annotations

import sys

MARK = "dflowd-spec-folder:"  # before the folder, in an entry of the path that every other reader passes over

__path__ = [entry.removeprefix(MARK) for entry in sys.path if entry.startswith(MARK)]
