"""dflow ps."""

from __future__ import annotations

from pathlib import Path

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To


def ps(folder: Folder = DEFAULT_FOLDER, to: To = "", as_json: AsJson = False) -> None:
    """List the runs that the mesh knows, the newest last.

    Example: dflow ps --json
    """
    from ..kept.asking import ask
    from ..kept.source import origin
    from ..output import note_missing, print_json, print_table
    from ..runs.outcome import read_state, remark

    with ask(Path(folder).absolute(), to) as source:
        answer = source.call("runs")
    rows = [{**run, "state": read_state(run["state"])} for run in answer["runs"]]
    if as_json:
        print_json({"runs": rows, "missing": answer.get("missing", []), **origin(answer)})
    else:
        columns = ["run", "name", "state", "step", "steps"]
        remarks = [remark(row) for row in rows]
        table = [[row.get(column) for column in columns] for row in rows]
        if any(remarks):
            table = [[*cells, text] for cells, text in zip(table, remarks, strict=True)]
            columns.append("remark")
        print_table(columns, table)
        note_missing(answer)
