"""A checkpoint of adapters becomes one of a whole model, in place: what `dflow export --merge` starts.

python -m dflowd.models.merging FOLDER          the folder, as a checkpoint is exported
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.versions.saved import FILE, Saved, read_saved
from dflowd.jobs.failures import HostError, UserError

from .adapters import CONFIG, WEIGHTS
from .policy import BASE, Policy

PIPELINE = "pipeline.json"


def merge(folder: Path) -> None:
    """Each model of the folder that is adapters. Raises UserError, HostError and OSError."""
    pipeline = Pipeline.from_canonical((folder / PIPELINE).read_bytes())
    saved = read_saved((folder / FILE).read_text(encoding="utf-8"))
    for name in pipeline.trainable:
        if name in pipeline.bases:
            _merge(folder, folder / pipeline.folder_of(name), name, pipeline.models[name], saved)
    (folder / FILE).unlink()  # what it says of the weights is not so any more


def _merge(folder: Path, place: Path, name: str, described: Mapping[str, Any], saved: Saved) -> None:
    base = place / json.loads((place / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    if not (base / "config.json").is_file():
        raise UserError(f"the base of model `{name}`, {base}, is not on this machine; export where it lies")
    policy = Policy(name, {"path": str(base), "lora": described["lora"]}, place, 0)
    if policy.base_id != b"".join(_parts(folder, saved, f"base:{name}")):
        raise UserError(f"{base} holds other weights than those that model `{name}` was trained beside; bring those")
    policy.parameters.load((saved.header.id,), memoryview(b"".join(_parts(folder, saved, f"params:{name}"))))
    policy.merge()
    whole = place / ".whole"
    whole.mkdir()
    policy.save(whole)
    for left in (CONFIG, WEIGHTS):
        (place / left).unlink()
    shutil.rmtree(place / BASE, ignore_errors=True)
    for file in folder.glob(f"base-{name}.*"):
        file.unlink()
    for path in whole.iterdir():
        path.replace(place / path.name)
    whole.rmdir()


def _parts(folder: Path, saved: Saved, role: str) -> Iterator[bytes]:
    for (name, ref), lies in zip(saved.header.state, saved.places, strict=True):
        if name == role:
            with (folder / lies.file).open("rb") as file:
                file.seek(lies.offset)
                yield file.read(ref.nbytes)


if __name__ == "__main__":
    try:
        merge(Path(sys.argv[1]))
    except (UserError, HostError, OSError, ValueError) as error:
        sys.exit(" ".join(str(error).split()))
