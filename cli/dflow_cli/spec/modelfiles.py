"""A model's and a tokenizer's files, looked at before a run is submitted: what an engine would say a minute later.

Reads JSON and the head of weight files; loads no library that touches models. What it cannot know (what is in code,
and in no file) the engine tells.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline import Problem
from dflow_protocols.pipeline.architecture import misshapen
from dflow_protocols.pipeline.grammar.problem import nearest
from dflow_protocols.pipeline.models import Facts, context_of, end_tokens, rules_of_sampling, unsupported

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
VOCABULARIES = ("*.model", "vocab.json", "vocab.txt", "tekken.json", "*.tiktoken")  # of tokenizers of other forms
WITHOUT_DEFAULTS = ("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend")  # no end token of their own
HEAD_BYTES = 100 << 20  # of a safetensors file, at most, by its format
ANEW = "take the file anew from where the model came from"


class _Unreadable(Exception):
    """A file that is no JSON object. `what`: in words."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass
class ModelFiles:
    """What the spec names as one model, and what its files say. `base`: where the spec's paths start."""

    name: str
    source: Mapping[str, Any]
    base: Path
    unreadable: set[str] = field(default_factory=set)

    @property
    def is_folder(self) -> bool:
        return "path" in self.source

    @property
    def config_file(self) -> str:
        """From the spec's folder on."""
        if self.is_folder:
            return f"{self.source['path'].rstrip('/')}/config.json"
        return str(self.source["init"]["config"])

    @property
    def folder(self) -> str:
        """Of the tokenizer, from the spec's folder on."""
        return str(self.source["path"] if self.is_folder else self.source["init"]["tokenizer"]).rstrip("/")

    @property
    def config_path(self) -> str:
        """Of the key in the spec that names the config."""
        return f"models.{self.name}.{'path' if self.is_folder else 'init.config'}"

    @property
    def tokenizer_path(self) -> str:
        return f"models.{self.name}.{'path' if self.is_folder else 'init.tokenizer'}"

    @cached_property
    def config(self) -> Facts:
        return self._facts(self.config_file)

    @cached_property
    def generation(self) -> Facts:
        return self._facts(f"{self.source['path'].rstrip('/')}/generation_config.json") if self.is_folder else {}

    @cached_property
    def tokenizer_config(self) -> Facts:
        return self._facts(f"{self.folder}/tokenizer_config.json")

    @cached_property
    def special_tokens(self) -> Facts:
        return self._facts(f"{self.folder}/special_tokens_map.json")

    @cached_property
    def tokenizer(self) -> Facts:
        return self._facts(f"{self.folder}/tokenizer.json")

    @cached_property
    def context(self) -> int | None:
        return context_of(self.config)

    def special(self, name: str) -> str | None:
        """The text of a special token such as `eos_token`, as far as the files tell it."""
        for facts in (self.tokenizer_config, self.special_tokens):
            found = facts.get(name)
            text = found.get("content") if isinstance(found, dict) else found
            if isinstance(text, str):
                return text
        return None

    @cached_property
    def chat_template(self) -> tuple[str, str] | None:
        """(file, text) of the template that a conversation is put into; None where there is none."""
        file = f"{self.folder}/chat_template.jinja"
        try:
            return file, (self.base / file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            found = self.tokenizer_config.get("chat_template")
        if isinstance(found, list):
            named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
            found = named.get("default")
        return (f"{self.folder}/tokenizer_config.json", found) if isinstance(found, str) and found else None

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token by text, without those that were added to it; empty where no file tells."""
        model = self.tokenizer.get("model")
        found = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(found, dict):
            return {text: token for text, token in found.items() if isinstance(token, int)}
        listed = found if isinstance(found, list) else []
        return {str(piece[0]): token for token, piece in enumerate(listed) if isinstance(piece, list) and piece}

    @cached_property
    def added(self) -> dict[str, int]:
        listed = self.tokenizer.get("added_tokens")
        found = {item["content"]: item["id"] for item in listed or () if isinstance(item, dict) and "content" in item}
        decoder = self.tokenizer_config.get("added_tokens_decoder")
        for token, item in decoder.items() if isinstance(decoder, dict) else ():
            if isinstance(item, dict) and str(token).isdecimal() and isinstance(item.get("content"), str):
                found[item["content"]] = int(token)
        return {text: token for text, token in found.items() if isinstance(token, int)}

    def _facts(self, name: str) -> Facts:
        """A file's JSON object, {} where there is no such file. Raises _Unreadable, once a file."""
        if name in self.unreadable or not (self.base / name).is_file():
            return {}
        try:
            found = json.loads((self.base / name).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            what = "is no text in UTF-8"
        except json.JSONDecodeError as error:
            what = f"is not JSON: {error.msg} (line {error.lineno})"
        except RecursionError:
            what = "is not JSON that can be read: nested too deep"
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        else:
            if isinstance(found, dict):
                return found
            what = "is not a JSON object"
        self.unreadable.add(name)
        raise _Unreadable(f"{name} {what}")


def look_at_model(files: ModelFiles) -> Iterator[Problem]:
    """What is wrong with a model's own files, and with its tokenizer's, each for itself."""
    for check in (_config, _generation, _weights):
        yield from _problems_of(check, files, files.config_path)
    for check in (_tokenizer, _end, _vocabulary):
        yield from _problems_of(check, files, files.tokenizer_path)
    yield from _problems_of(_targets, files, f"models.{files.name}.lora.targets")


def _problems_of(check: Any, files: ModelFiles, path: str) -> Iterator[Problem]:
    while True:
        try:
            found = list(check(files))
        except _Unreadable as error:
            yield Problem(path, f"model `{files.name}`: {error.what}", ANEW)
            continue  # a file is unreadable once; what the others say counts all the same
        for what, hint in found:
            yield Problem(path, f"model `{files.name}`: {what}", hint)
        return


Told = Iterator[tuple[str, str]]


def _config(files: ModelFiles) -> Told:
    name = files.config_file
    if not (files.base / name).is_file():
        if not files.is_folder:
            return  # told with the other missing files
        yield f"there is no `{name}`", "a model's folder is one that `save_pretrained` wrote; it has a config.json"
        return
    config = files.config
    if name in files.unreadable:
        return
    kind = config.get("model_type")
    if not isinstance(kind, str):
        yield f"{name} names no `model_type`", 'such as "llama"; without it nobody knows what to build'
        return
    refused = [(f"{name}: {unfit.what}", unfit.hint) for unfit in (*unsupported(config), *misshapen(config))]
    yield from refused
    for key in ("hidden_act", "activation_function", "hidden_activation"):
        asked, there = config.get(key), activations()
        if there and isinstance(asked, str) and asked not in there:
            near = nearest(asked, there)
            mend = f"did you mean `{near}`?" if near else f"known ones: {', '.join(sorted(there))}"
            yield f"{name}: the transformers here has no `{key}` called `{asked}`", mend
    known = causal_models()
    if known and kind not in known and not refused:
        near = nearest(kind, known)
        of_its_own = "its own code (`auto_map`) is not run" if "auto_map" in config else ""
        mend = f"did you mean `{near}`?" if near else "take a model of a type that it knows, or a newer transformers"
        yield f"{name}: the transformers here has no language model of type `{kind}`", of_its_own or mend
    elif known and files.source.get("head") and kind not in value_models() and not refused:
        yield f"{name}: transformers puts no value head on a model of type `{kind}`", "take another one for a critic"


def _generation(files: ModelFiles) -> Told:
    for unfit in rules_of_sampling(files.generation):
        yield f"{files.source['path'].rstrip('/')}/generation_config.json: {unfit.what}", unfit.hint


def _weights(files: ModelFiles) -> Told:
    if not files.is_folder:
        return
    folder = files.base / files.source["path"]
    shown = files.source["path"].rstrip("/")
    shards, index = _weight_files(files)
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        yield f"{shown}/{index} names {missing[0]}, which is not there ({len(missing)} missing)", ANEW
    if not shards:
        yield f"{shown} holds no weights (`model.safetensors`)", "take the whole folder, or `init` for fresh weights"
    for name in shards:
        file = folder / name
        if name.endswith(".safetensors") and file.is_file() and (torn := torn_weights(file)):
            yield f"{shown}/{name} {torn}", ANEW


def _weight_files(files: ModelFiles) -> tuple[list[str], str]:
    """Those that hold the weights, and the index that names them; empty where there is none. Raises _Unreadable."""
    folder = files.base / files.source["path"]
    whole = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    index = next((name for name in INDICES if (folder / name).is_file()), "")
    if whole is not None or not index:
        return [whole] if whole is not None else [], ""
    named = files._facts(f"{files.source['path'].rstrip('/')}/{index}").get("weight_map")
    return sorted({str(name) for name in named.values()}) if isinstance(named, dict) else [], index


def torn_weights(file: Path) -> str:
    """What is wrong with a safetensors file by its head and its length, in words; empty where nothing is."""
    try:
        head, start = _head(file)
        ends = [item["data_offsets"][1] for name, item in head.items() if name != "__metadata__"]
        length, due = file.stat().st_size, start + max(ends, default=0)
    except _Unreadable as error:
        return error.what
    except (TypeError, KeyError, IndexError, AttributeError):
        return "has a head that cannot be read"
    return f"is {length} bytes long where its head speaks of {due}" if length != due else ""


def tensors_of(files: ModelFiles) -> dict[str, tuple[int, ...]]:
    """Shapes by name of what a model's safetensors files hold, tied ones once; {} where the heads do not tell."""
    if not files.is_folder:
        return {}
    folder = files.base / files.source["path"]
    try:
        heads = [_head(folder / name)[0] for name in _weight_files(files)[0]]
        found = {name: tuple(item["shape"]) for head in heads for name, item in head.items() if name != "__metadata__"}
    except (_Unreadable, OSError, TypeError, KeyError, AttributeError):
        return {}
    if files.config.get("tie_word_embeddings"):
        found.pop("lm_head.weight", None)
    return found


def _head(file: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's head, and where its data begin. Raises _Unreadable."""
    with file.open("rb") as stream:
        start = stream.read(8)
        if start[:7] == b"version":
            raise _Unreadable("is a pointer of Git LFS, not the weights")
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else HEAD_BYTES + 1
        if size > min(file.stat().st_size - 8, HEAD_BYTES):
            raise _Unreadable("is cut off, or no safetensors file")
        try:
            return json.loads(stream.read(size)), 8 + size
        except (ValueError, RecursionError) as error:
            raise _Unreadable("has a head that cannot be read") from error


def _tokenizer(files: ModelFiles) -> Told:
    folder = files.base / files.folder
    if not folder.is_dir():
        return  # told already
    if (folder / "tokenizer.json").is_file():
        facts, name = files.tokenizer, f"{files.folder}/tokenizer.json"
        if name not in files.unreadable and not isinstance(facts.get("model"), dict):
            yield f"{name} is no tokenizer: it has no `model`", ANEW
    elif not any(next(folder.glob(form), None) for form in VOCABULARIES):
        yield f"{files.folder} holds no tokenizer (`tokenizer.json`)", "name the folder that `save_pretrained` wrote"


def _end(files: ModelFiles) -> Told:
    kind = files.tokenizer_config.get("tokenizer_class")
    config = f"{files.folder}/tokenizer_config.json"
    end = files.special("eos_token")
    is_told = "eos_token" in files.tokenizer_config or kind is None or kind in WITHOUT_DEFAULTS
    if not files.tokenizer or config in files.unreadable:
        return
    if end is None:
        if is_told:
            what = f"{files.folder}: the tokenizer has no eos token, and completions have to end"
            yield what, f"set `eos_token` in {config}"
        return
    tokens = files.vocabulary | files.added
    if files.vocabulary and end not in tokens:
        near = nearest(end, files.added)
        mend = f"did you mean `{near}`?" if near else "name a token of its vocabulary"
        yield f"{config}: the eos token `{end}` is not in the tokenizer's vocabulary", mend


def _vocabulary(files: ModelFiles) -> Told:
    rows = files.config.get("vocab_size")
    if not isinstance(rows, int):
        return
    hint = "take the tokenizer that belongs to the model, or a model that was made for it"
    last = max(files.vocabulary.values(), default=-1)
    if last >= rows:
        what = f"{files.folder} has tokens up to {last}, and {files.config_file} a vocabulary of {rows} (`vocab_size`)"
        yield what, hint
        return
    end = files.special("eos_token")
    named = {"eos_token_id": files.added.get(end or "")}
    for token in end_tokens(files.config, files.generation, named):
        if token >= rows:
            yield f"end token {token} is beyond the vocabulary of {rows} (`vocab_size` in {files.config_file})", hint


def _targets(files: ModelFiles) -> Told:
    """Layers that are to have adapters, by the model's code; what it does not show the engine tells."""
    asked = (files.source.get("lora") or {}).get("targets") or ()
    parts = parts_of(str(files.config.get("model_type"))) if asked else frozenset()
    for target in asked if parts else ():
        if target.rpartition(".")[2] not in parts:
            near = nearest(target.rpartition(".")[2], parts)
            mend = f"did you mean `{near}`?" if near else "leave `targets` out: all linear layers but the head"
            yield f"a model of type `{files.config['model_type']}` has no layer `{target}`", mend


@cache
def parts_of(kind: str) -> frozenset[str]:
    """What layers of a model type are called, and other parts of it, in the transformers installed here; none where it
    is not installed, or the type's code lies elsewhere."""
    name = kind.removesuffix("_text")
    nodes = list(ast.walk(_source(f"models/{name}/modeling_{name}.py")))
    bound = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    bound += [node.target for node in nodes if isinstance(node, ast.AnnAssign)]
    return frozenset(target.attr for target in bound if isinstance(target, ast.Attribute))


def causal_models() -> frozenset[str]:
    """Model types that the transformers installed here has a language model for; none where it is not installed."""
    return _mapped("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


def value_models() -> frozenset[str]:
    """Of those, such as it can put a value head on; none where it is not installed."""
    return _mapped("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES") & causal_models()


@cache
def _mapped(name: str) -> frozenset[str]:
    pairs = ast.walk(_assigned("models/auto/modeling_auto.py", name))
    first = [pair.elts[0] for pair in pairs if isinstance(pair, ast.Tuple) and len(pair.elts) == 2]
    return frozenset(str(item.value) for item in first if isinstance(item, ast.Constant))


@cache
def activations() -> frozenset[str]:
    """Activation functions that the transformers installed here knows by name; none where it is not installed."""
    table = _assigned("activations.py", "ACT2CLS")
    keys = table.keys if isinstance(table, ast.Dict) else []
    return frozenset(str(key.value) for key in keys if isinstance(key, ast.Constant))


def _assigned(file: str, name: str) -> ast.expr:
    """What a module of transformers binds a name to; None as an expression where that is not to be found."""
    bound = [node for node in _source(file).body if isinstance(node, ast.Assign) and _is_named(node.targets[0], name)]
    return bound[0].value if bound else ast.Constant(None)


def _source(file: str) -> ast.Module:
    """A module of transformers, empty where it is not to be found. It is read: importing it would load PyTorch."""
    found = importlib.util.find_spec("transformers")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        try:
            return ast.parse((Path(place) / file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
    return ast.Module([], [])


def _is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
