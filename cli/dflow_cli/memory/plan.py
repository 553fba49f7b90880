"""`dflow plan --memory`: the models' sizes, the needs, and the daemons beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import EXIT_NO_DAEMON, CliError
from ..mesh.reach import reach
from ..output import amount, note, note_missing, print_json, print_table
from ..spec.modelfiles import ModelFiles
from ..spec.specfile import Loaded
from .fitting import Place, places_of
from .needs import VLLM_ASLEEP, Need, Needs, has_vllm, needs_of, trained_of
from .outline import Outline, outline_of

DEADLINE_S = 4.0


def plan_memory(loaded: Loaded, folder: Path, to: str, as_json: bool) -> None:
    """Print it. Raises CliError where the models' files do not tell their sizes, and where some daemon has too little
    memory."""
    pipeline, outlines = loaded.pipeline, _outlines(loaded)
    needs_on = partial(needs_of, pipeline, outlines)
    members = _members(folder, to)
    places = list(places_of(pipeline, outlines, members, needs_on))
    kinds = {"on cores": needs_on(False), "with a GPU": needs_on(True)}
    if as_json:
        print_json(
            {
                "models": {name: _size_of(loaded, outlines, name) for name in sorted(outlines)},
                "needs": {kind: asdict(needs) for kind, needs in kinds.items()},
                "places": [asdict(place) | {"fits": place.fits} for place in places],
            }
        )
    else:
        _tell(loaded, outlines, kinds, places)
    for place in places:
        if not place.fits:
            what = f"{pipeline.name} does not fit: {amount(place.needed)} are needed, {amount(place.there or 0)} there"
            raise CliError(what, where=f"{place.node}, {place.kind}", hint=place.mend)


def _outlines(loaded: Loaded) -> Mapping[str, Outline]:
    pipeline = loaded.pipeline
    if not pipeline.opens_files:
        raise CliError("its engine is emulated and opens no model", where="engine", hint="`engine: torch` has sizes")
    found = {}
    for name in pipeline.models:
        files = ModelFiles(name, pipeline.described(name), loaded.base)
        outline = outline_of(files)
        if outline is None:
            what = f"neither the weights nor {files.config_file} tell how large model `{name}` is"
            raise CliError(what, where=files.config_path, hint="weights as safetensors do")
        found[name] = outline
    return found


def _members(folder: Path, to: str) -> Sequence[Mapping[str, Any]]:
    """What the daemons tell of themselves; none where there is no mesh and none was named."""
    try:
        with reach(folder, to) as client:
            answer = client.call("doctor", deadline_s=DEADLINE_S)
            slots = {node["name"]: node.get("slots") or 1 for node in client.call("nodes")["nodes"]}
    except CliError as problem:
        if to or problem.exit_code != EXIT_NO_DAEMON:
            raise
        return ()
    note_missing(answer)
    return [{**member, "slots": slots.get(member["name"], 1)} for member in answer["members"]]


def _size_of(loaded: Loaded, outlines: Mapping[str, Outline], name: str) -> dict[str, Any]:
    pipeline, outline = loaded.pipeline, outlines[name]
    trained = trained_of(pipeline, outlines, name) if name in pipeline.trainable else 0
    return {"parameters": outline.parameters, "is_exact": outline.is_exact, "trained": trained}


def _tell(loaded: Loaded, outlines: Mapping[str, Outline], kinds: Mapping[str, Needs], places: Sequence[Place]) -> None:
    for name in sorted(outlines):
        size = _size_of(loaded, outlines, name)
        about = "" if size["is_exact"] else "about "
        print(
            f"{name}: {about}{size['parameters'] / 1e6:,.1f} million parameters, {size['trained'] / 1e6:,.1f} trained"
        )
    cores, gpu = kinds["on cores"], kinds["with a GPU"]
    tables = [
        ("each daemon, in shards", cores.shards),
        ("each slot on cores, in its engine", (*cores.engine, cores.opening)),
        ("each slot with a GPU, in its engine", (*gpu.engine, gpu.opening)),
        ("each slot with a GPU, there", gpu.device),
    ]
    for head, table in tables:
        print(f"\n{head}")
        print_table(("what", "bytes", "why"), [(_when(need), amount(need.nbytes), need.why) for need in table])
    print(f"of which {amount(gpu.most_device)} at once, as phases follow one another")
    if has_vllm(loaded.pipeline):
        print(f"beside vLLM asleep, which keeps about {amount(VLLM_ASLEEP)} of a GPU while another engine has it")
    print()
    if not places:
        note("no mesh here to hold it against: `dflow up`, or --to KEY@HOST:PORT")
        return
    print_table(("node", "memory", "needed", "there", "fits"), [place_row(place) for place in places])


def place_row(place: Place) -> tuple[str, ...]:
    """A place as people see it."""
    there, fits = ("?", "?") if place.there is None else (amount(place.there), "yes" if place.fits else "no")
    return place.node, place.kind, amount(place.needed), there, fits


def _when(need: Need) -> str:
    return f"{need.what}, {need.phase}" if need.phase else need.what
