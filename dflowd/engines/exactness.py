"""What makes two processes compute the same bits on one device, and how that is told from outside.

Settings of threads and code paths (the environment of child/process.py holds those that are read at import), and a test
at the start: a small forward and backward pass in each dtype, done twice, must give one digest. The digest is part of
the numerics class, so engines whose kernels differ never count as alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b

import torch
import transformers

from dflowd.models.attention import Spans, attend

LONG = 2048  # tokens of the long pass


def own_device() -> torch.device:
    """The GPU that this process was given, or the CPU where it was given none. Raises RuntimeError where PyTorch is
    built for GPUs and cannot use it: what the CPU computes in its place would be other bits, in silence."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if given and torch.version.cuda is not None:
        raise RuntimeError(f"No CUDA GPUs are available to PyTorch, and this slot was given GPU {given}")
    return torch.device("cpu")


def settle(device: torch.device) -> None:
    """One thread, deterministic kernels, float32 throughout."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(
        True, warn_only=device.type == "cpu"
    )  # a GPU's attention repeats no sum if warned
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def numerics_class(device: torch.device) -> str:
    """Engines with the same text make the same bytes. Raises RuntimeError where the device contradicts itself."""
    first, second = _digest(device), _digest(device)
    if first != second:
        raise RuntimeError(f"two equal passes on {device} gave {first} and {second}: its results cannot be reproduced")
    kind = torch.cuda.get_device_name(device).replace(" ", "-") if device.type == "cuda" else _cpu()
    builds = f"torch-{torch.__version__} transformers-{transformers.__version__}"
    return f"{builds} {kind} float32+bfloat16 sdpa {first}"


def _cpu() -> str:
    return f"cpu-{torch.backends.cpu.get_cpu_capability()}-{torch.get_num_threads()}thread"


def _digest(device: torch.device) -> str:
    hasher = blake2b(digest_size=6)
    for dtype in (torch.float32, torch.bfloat16):
        tensors = (*_pass(device, dtype), *(_long_pass(device, dtype, LONG) if device.type == "cuda" else ()))
        for tensor in tensors:
            hasher.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def _pass(device: torch.device, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """A loss and its gradients, through attention, a wide layer and a head."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype).requires_grad_()

    states, weights, head = draw(3, 4, 37, 32), draw(128, 128), draw(128, 101)
    mixed = torch.nn.functional.scaled_dot_product_attention(states, states, states, is_causal=True)
    wide = torch.nn.functional.silu(mixed.transpose(1, 2).reshape(3, 37, 128) @ weights)
    loss = torch.log_softmax((wide @ head).float(), -1).square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    yield loss.detach()
    for tensor in (states.grad, weights.grad, head.grad):
        assert tensor is not None
        yield tensor


def _long_pass(device: torch.device, dtype: torch.dtype, tokens: int) -> Iterator[torch.Tensor]:
    """What sums in an order of its own on a GPU, unless told not to: rows of an embedding that occur often, and the
    attention of texts in one line, with a window and shared heads, too long for one block of a kernel."""
    generator = torch.Generator().manual_seed(2)
    table = torch.randn(50, 256, generator=generator).to(device, dtype).requires_grad_()
    ids = torch.randint(50, (tokens,), generator=generator).to(device)
    heads = torch.nn.functional.embedding(ids, table).view(1, tokens, 4, 64).transpose(1, 2)
    cuts = (0, tokens // 8, tokens // 2, tokens)
    starts = torch.tensor(cuts, dtype=torch.int32, device=device)
    loss = torch.zeros((), device=device)
    for window in (None, tokens // 16):
        mixed, _ = attend(torch.nn.Identity(), heads, heads[:, :2], heads[:, :2], Spans(starts, cuts, window))
        loss = loss + mixed.float().square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert table.grad is not None
    yield from (loss.detach(), table.grad)
