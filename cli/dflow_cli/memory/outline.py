"""How large a model is, by its files: parameters, linear layers, and the numbers that its activations follow from.

Reads the heads of safetensors files, else derives the shapes from `config.json`; opens no library that touches models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from dflow_protocols.pipeline.models import Facts

from ..spec.modelfiles import ModelFiles, tensors_of

Shape = tuple[int, ...]

OUTPUTS = ("lm_head.", "embed_out.")
"""Beginnings of names of what says the next token."""

NOT_ADAPTED = ("embed", "wte", "wpe", "lm_head", "experts", "block_sparse_moe", "mlp.gate.")
"""Parts of names of matrices that get no adapter: embeddings, heads, experts (one parameter when opened), routers."""

UNGATED = frozenset(("gpt2", "gpt_neox", "opt", "falcon", "starcoder2"))
"""Model types whose layers have two matrices of the inner width, in place of three."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Of a decoder, in elements. `queries`, `keys`: of all heads together; `inner`: what a token passes in the MLP."""

    layers: int
    hidden: int
    queries: int
    keys: int
    inner: int

    @property
    def activations(self) -> int:
        """Elements that a layer keeps of a token for its backward pass, without attention's own: two normalizations
        and two residual sums, queries, keys and values before and after their rotation, what attention gives, and the
        inner width before and after its gate (after arXiv 2205.05198, section 4.1)."""
        return 8 * self.hidden + 2 * (self.queries + 2 * self.keys) + 4 * self.inner


@dataclass(frozen=True, slots=True)
class Outline:
    """`shapes`: of all parameters by name, tied ones once. `is_exact`: read from the weights, else by the usual form
    of a decoder. `widths`: None where config.json does not have them under names that are known."""

    shapes: Mapping[str, Shape]
    widths: Widths | None
    is_exact: bool

    @property
    def parameters(self) -> int:
        return sum(map(prod, self.shapes.values()))

    def adapters(self, rank: int, targets: Sequence[str] | None) -> int:
        """Elements of low-rank adapters, an `[rank, in]` and an `[out, rank]` for each linear layer that is meant: all
        but the head, or those whose name ends with one of `targets`."""
        return sum(rank * sum(shape) for shape in self._linear(targets))

    def _linear(self, targets: Sequence[str] | None) -> Iterator[Shape]:
        for name, shape in self.shapes.items():
            layer = name.removesuffix(".weight")
            meant = not targets or any(layer == each or layer.endswith(f".{each}") for each in targets)
            if len(shape) == 2 and meant and not any(part in name for part in NOT_ADAPTED):
                yield shape


def outline_of(files: ModelFiles) -> Outline | None:
    """None where neither weights nor config.json tell."""
    widths = _widths(files.config)
    shapes: Mapping[str, Shape] = tensors_of(files)
    is_exact, rows = bool(shapes), files.config.get("vocab_size")
    if not is_exact:
        if widths is None or not isinstance(rows, int):
            return None
        shapes = dict(_usual(widths, rows, files.config))
    return Outline(_with_values(shapes, widths) if files.source.get("head") else shapes, widths, is_exact)


def _with_values(shapes: Mapping[str, Shape], widths: Widths | None) -> Mapping[str, Shape]:
    """A critic's: one row in place of what says the next token."""
    row = {"score.weight": (1, widths.hidden)} if widths is not None else {}
    return row | {name: shape for name, shape in shapes.items() if not name.startswith(OUTPUTS)}


def _widths(config: Facts) -> Widths | None:
    def number(*names: str) -> int | None:
        return next((value for name in names if isinstance(value := config.get(name), int) and value > 0), None)

    layers, hidden = number("num_hidden_layers", "n_layer"), number("hidden_size", "n_embd")
    heads = number("num_attention_heads", "n_head")
    if layers is None or hidden is None or heads is None:
        return None
    each = number("head_dim") or hidden // heads
    chosen = number("num_experts_per_tok")
    inner = number("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    return Widths(layers, hidden, heads * each, (number("num_key_value_heads") or heads) * each, inner * (chosen or 1))


def _usual(widths: Widths, rows: int, config: Facts) -> Iterator[tuple[str, Shape]]:
    """A decoder's parameters as most architectures have them; biases and learned positions are left out."""
    yield "model.embed_tokens.weight", (rows, widths.hidden)
    experts = next((n for key in ("num_local_experts", "num_experts") if isinstance(n := config.get(key), int)), 1)
    inner = widths.inner // (config.get("num_experts_per_tok") or 1) if experts > 1 else widths.inner
    for layer in range(widths.layers):
        place = f"model.layers.{layer}"
        yield f"{place}.self_attn.q_proj.weight", (widths.queries, widths.hidden)
        yield f"{place}.self_attn.k_proj.weight", (widths.keys, widths.hidden)
        yield f"{place}.self_attn.v_proj.weight", (widths.keys, widths.hidden)
        yield f"{place}.self_attn.o_proj.weight", (widths.hidden, widths.queries)
        for expert in range(experts):
            each = f"{place}.mlp.experts.{expert}" if experts > 1 else f"{place}.mlp"
            if config.get("model_type") not in UNGATED:
                yield f"{each}.gate_proj.weight", (inner, widths.hidden)
            yield f"{each}.up_proj.weight", (inner, widths.hidden)
            yield f"{each}.down_proj.weight", (widths.hidden, inner)
        yield f"{place}.input_layernorm.weight", (widths.hidden,)
        yield f"{place}.post_attention_layernorm.weight", (widths.hidden,)
    yield "model.norm.weight", (widths.hidden,)
    if not config.get("tie_word_embeddings"):
        yield "lm_head.weight", (rows, widths.hidden)
