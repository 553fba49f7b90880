"""Models beside the stages and data that use them: whether prompts can be worded as the chat template wants it, and
whether they and what is said to them fit into the model's positions."""

from __future__ import annotations

import heapq
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dflow_protocols.pipeline import Pipeline, Problem, Stage
from dflow_protocols.pipeline.architecture import DIVIDED_EVENLY, no_such_heads
from dflow_protocols.pipeline.entries.conversation import (
    USER,
    Message,
    answer_span,
    answers_in,
    assistant_spans,
    put_to_model,
    read_messages,
    with_system,
)
from dflow_protocols.pipeline.entries.entry import Keys, Row, make_entry
from dflow_protocols.pipeline.entries.mixing import sets_in
from dflow_protocols.pipeline.entries.parts import format_of
from dflow_protocols.pipeline.entries.problem import EntryError
from dflow_protocols.pipeline.entries.settings import CUT_LEFT, DROP, ITS_OWN, OF_CHAT, data_of
from dflow_protocols.pipeline.entries.tables import is_readable
from dflow_protocols.pipeline.grammar.engines import ENGINES
from dflow_protocols.pipeline.grammar.problem import Findings, suggest
from dflow_protocols.pipeline.grammar.signatures import HEARD
from dflow_protocols.pipeline.models import TEMPLATE_DAY

from .datalook import LINES_READ, rows_of
from .modelfiles import ANEW, ModelFiles, look_at_model

if TYPE_CHECKING:
    from .chattemplate import Chat

CHARACTERS_A_TOKEN = 100  # more than any has, on average: what is cut off beyond them would only be too long as well
OWN_TOKENS = 8  # that a tokenizer may add to a text
COUNTED = 64  # prompts of one data file whose tokens are counted, the longest texts; engines count all
TRIED = "what is 17 + 5"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def look_at_models(pipeline: Pipeline, base: Path) -> Findings:
    """What is wrong with models, and with what stages want of them. The emulated engine opens none."""
    found = Findings()
    if not pipeline.opens_files:
        return found
    for name in sorted(pipeline.models, key=lambda name: (name in pipeline.kept, name)):
        source = pipeline.described(name)
        files = ModelFiles(name, source, base)
        if not (base / files.folder).is_dir():
            continue  # told with the other missing files
        problems = list(look_at_model(files))
        found.problems += [] if name in pipeline.kept else problems  # those are told of the model that it is of
        _look_at_heads(pipeline, files, found)
        tokenizer = _tokenizer(files, found)
        for index, stage in enumerate(pipeline.stages):
            if stage.model == name and tokenizer is not None:
                _look_at_reply(name, tokenizer, stage, f"stages[{index}]", found)
            if stage.model == name and "data" in stage.config:
                for data in sets_in(pipeline.data, data_of(stage.config)):
                    _look_at_stage(_Use(files, tokenizer, pipeline, stage, f"stages[{index}]", data), found)
    return found


def _look_at_reply(model: str, tokenizer: Any, stage: Stage, place: str, found: Findings) -> None:
    """Whether the model reads what a reply's template puts around what was said. What that is nobody knows yet."""
    template = str(stage.config.get("template", ""))
    if HEARD not in template:
        return
    try:
        tokenizer.encode(template.replace(HEARD, "").replace("{prompt}", ""), add_special_tokens=False)
    except Exception as error:  # such as a character that the vocabulary lacks: the package raises nothing else
        said = " ".join(str(error).split())[:300]
        what = f"stage `{stage.id}`: the tokenizer of model `{model}` cannot read {template!r}: {said}"
        hint = "word it in characters that the model knows"
        found.problems.append(Problem(f"{place}.config.template", what, hint))


def _look_at_heads(pipeline: Pipeline, files: ModelFiles, found: Findings) -> None:
    """Heads that the engine of a stage cannot compute: a mistake where it is kept to CPUs, else a doubt, as a daemon
    with a GPU may take it."""
    for index, stage in enumerate(pipeline.stages):
        if stage.model != files.name or files.config_file in files.unreadable or "gpu" in pipeline.needs(stage.id):
            continue
        if "head_dim" not in files.config and files.config.get("model_type") not in DIVIDED_EVENLY:
            continue  # the type may have a default of its own, which the engine knows
        engine = pipeline.engine_of(stage.id)
        kind = ENGINES[engine]
        for unfit in no_such_heads(files.config, kind.heads_on_cpu, engine, kind.rest):
            told = found.problems if "cpu" in pipeline.needs(stage.id) else found.warnings
            what = f"stage `{stage.id}`: {files.config_file} of model `{files.name}`: {unfit.what}"
            told.append(Problem(f"stages[{index}].engine", what, unfit.hint))
            return  # one stage is enough to know


@dataclass(frozen=True, slots=True)
class _Use:
    """A stage that puts prompts to a model, and one of the data sets that they come from. `tokenizer`: the model's;
    None where there is none here."""

    files: ModelFiles
    tokenizer: Any
    pipeline: Pipeline
    stage: Stage
    place: str
    data: str

    @property
    def source(self) -> Mapping[str, Any]:
        return self.pipeline.data[self.data]

    @property
    def args(self) -> Mapping[str, Any]:
        """What the chat template is told beside the messages."""
        return self.source.get("template_args") or {}

    @property
    def most(self) -> int | None:
        """Tokens that a prompt may have, by the data."""
        most = self.source.get("max_prompt_tokens")
        return None if most is None else int(most)

    @property
    def long(self) -> str:
        """What becomes of prompts that have more."""
        return str(self.source.get("long_prompts", "refuse"))

    @property
    def format(self) -> str | None:
        """Of the data set's files; None where it has none that can be read here."""
        kind = format_of(self.source)
        return kind if kind is not None and is_readable(kind) else None

    @property
    def is_of_conversations(self) -> bool:
        """Whether conversations are trained on as they are."""
        return self.source.get("messages") is not None and self.stage.operator.trains is not None

    @property
    def said(self) -> int | None:
        """Tokens said to a prompt at most; None: an answer's."""
        most = self.stage.config.get("max_tokens")
        return None if most is None else int(most)


def _look_at_stage(use: _Use, found: Findings) -> None:
    chat = _chat(use, found)
    if chat is not None and use.source.get("messages") is not None and use.format is not None:
        _look_at_turns(use, use.format, chat, found)
    if use.most is not None and use.format is not None:
        _look_at_long(use, use.format, chat, use.most, found)
    if use.stage.operator.prefers and use.said is not None and use.format is not None:
        _look_at_pairs(use, use.format, use.said, found)
    context = use.files.context
    if context is None:
        return
    if use.said is not None and use.said >= context:
        what = f"stage `{use.stage.id}`: `max_tokens` {use.said} leaves no room for a prompt"
        where = f"model `{use.files.name}` has {context} positions ({use.files.config_file})"
        path = f"{use.place}.config.max_tokens"
        _note(found.problems, Problem(path, f"{what}: {where}", f"lower it below {context}"))
    elif use.format is not None:
        _look_at_lengths(use, use.format, chat, context, found)


def _chat(use: _Use, found: Findings) -> Chat | None:
    """The chat template that the stage's prompts go through, tried; None where there is none that works."""
    template = use.files.chat_template
    wanted = next((key for key in OF_CHAT if use.source.get(key)), "chat" if use.source["chat"] else None)
    path = f"data.{use.data}.{wanted}" if wanted else use.files.tokenizer_path
    if use.source["chat"] is False or (template is None and wanted is None):
        return None
    if template is None:
        what = f"the tokenizer of model `{use.files.name}` has no chat template, which `{wanted}` is for"
        _note(found.problems, Problem(path, what, f"leave `{wanted}` out, or take a tokenizer with a template"))
        return None
    from .chattemplate import Chat, TemplateFault  # Jinja takes a tenth of a second to load

    file, text = template
    special = {name: token for name in SPECIAL_TOKENS if (token := use.files.special(name)) is not None}
    told = f"model `{use.files.name}`: the chat template in {file}"
    try:
        chat = Chat(text, special)
        _try(use, chat, f"{told} ", path, found)
    except TemplateFault as fault:
        _note(found.problems, Problem(path, f"{told}: {fault.what}", fault.hint))
        return None
    if chat.asks_for_the_day:
        hint = "so that a prompt is a function of the spec, whatever the clock says"
        _note(found.warnings, Problem(path, f"{told} asks for the date: it is told {TEMPLATE_DAY} always", hint))
    for name in sorted(set(use.args) - chat.asks_for):
        known = chat.asks_for - {*ITS_OWN, *SPECIAL_TOKENS}
        hint = suggest(name, known, "names") if known else "leave it out: the template asks for nothing"
        where = f"data.{use.data}.template_args.{name}"
        _note(found.warnings, Problem(where, f"{told} does not ask for `{name}`", hint))
    return chat


def _try(use: _Use, chat: Chat, told: str, path: str, found: Findings) -> None:
    """Whether a prompt comes through the template. Raises TemplateFault."""
    from .chattemplate import TemplateFault

    args, system = use.args, use.source.get("system")
    asked: list[Message] = [{"role": USER, "content": TRIED}]
    prompt = chat.render(asked, args)
    if TRIED not in prompt:
        what = f"{told}leaves a user's message out of the prompt"
        _note(found.problems, Problem(path, what, "correct it, or write `chat: false` in the data"))
    if system is None:
        return
    try:
        fault = (
            "" if _is_said(system, chat.render(with_system(asked, system), args)) else "it is left out of the prompt"
        )
    except TemplateFault as error:
        fault = error.what
    if fault:
        what, hint = f"{told}takes no system's message: {fault}", "leave `system` out, and put it into `template`"
        _note(found.problems, Problem(f"data.{use.data}.system", what, hint))


def _is_said(text: str, prompt: str) -> bool:
    """Some templates take the space around it away."""
    return text.strip() in prompt


def _note(problems: list[Problem], problem: Problem) -> None:
    """Once, however many stages share the cause."""
    if problem not in problems:
        problems.append(problem)


def _look_at_turns(use: _Use, kind: str, chat: Chat, found: Findings) -> None:
    """Whether the template takes the conversations and, where they are trained on, lets the assistant's turns be told
    from the rest: tried with the first conversation of each order of roles."""
    from .chattemplate import TemplateFault

    def render(messages: Sequence[Message], asks: bool) -> str:
        return chat.render(messages, use.args, asks=asks)

    tried: set[tuple[str, ...]] = set()
    try:
        for place, row in rows_of(kind, use.source[kind], use.files.base, LINES_READ):
            entry = make_entry(row, Keys.of(use.source))
            messages = _asked(use, entry)
            roles = tuple(str(message["role"]) for message in messages)
            if roles in tried:
                continue
            tried.add(roles)
            try:
                if use.is_of_conversations and not chat.marks_answers:
                    assistant_spans(messages, render)
                elif use.stage.operator.prefers:
                    answer_span(messages, entry["answer"], render)
                else:
                    render(messages, not use.is_of_conversations)
            except (EntryError, TemplateFault) as error:
                what = f"stage `{use.stage.id}`: {place}, by the template of model `{use.files.name}`: {error.what}"
                hint = error.hint if isinstance(error, EntryError) else "correct the conversation, or the template"
                _note(found.problems, Problem(f"data.{use.data}.messages", what, hint))
                return
    except (EntryError, OSError):
        return  # told with the data


def _look_at_long(use: _Use, kind: str, chat: Chat | None, most: int, found: Findings) -> None:
    """How many prompts have more tokens than the data allows, and what then becomes of them."""
    if use.tokenizer is None or (use.is_of_conversations and chat is None):
        return
    long, entries = _long_rows(use, kind, lambda entry: _count(use, chat, entry, most) > most)
    if not long:
        return
    does, name = use.long, use.source[kind]
    kinds = f"prompts of {name} are longer than"
    if use.is_of_conversations and does != DROP:
        kinds = f"conversations of {name} are longer before their first answer than"
    what = f"{len(long)} of {entries} {kinds} `max_prompt_tokens`, {most}"
    path = f"data.{use.data}.max_prompt_tokens"
    if does == "refuse":
        hint = "shorten it or take it out, or write `long_prompts: drop` or `cut_left`"
        _note(found.problems, Problem(path, f"{what}: the first is {long[0]}", hint))
    elif does == DROP and len(long) == entries:
        _note(found.problems, Problem(path, f"{what}: nothing is left", "raise it"))
    else:
        then = "they are left out" if does == DROP else f"they lose their first tokens (the first is {long[0]})"
        _note(found.warnings, Problem(path, f"{what}: {then}", "raise it, if that is not meant"))


def _long_rows(use: _Use, kind: str, is_long: Callable[[Row], bool]) -> tuple[list[str], int]:
    """Where the rows are that are too long, of how many; none of data that cannot be read, which is told with it."""
    long: list[str] = []
    entries = 0
    try:
        for place, row in rows_of(kind, use.source[kind], use.files.base, LINES_READ):
            entries += 1
            if is_long(make_entry(row, Keys.of(use.source))):
                long.append(place)
    except (EntryError, OSError):
        return [], 0
    return long, entries


def _count(use: _Use, chat: Chat | None, entry: Row, most: int) -> int:
    """Tokens of a prompt; of a short one 0, and of a long one as many as are enough to say that it is too long."""
    try:
        text = _bounded(use, chat, entry)
        if len(text.encode("utf-8", "surrogatepass")) + OWN_TOKENS <= most:
            return 0
        return len(use.tokenizer.encode(text[: CHARACTERS_A_TOKEN * (most + 1)], add_special_tokens=chat is None).ids)
    except Exception:  # such as a character that the vocabulary lacks: the engine tells its text
        return 0


def _look_at_pairs(use: _Use, kind: str, most: int, found: Findings) -> None:
    """How many pairs have an answer of more tokens than the stage takes."""
    if use.tokenizer is None:
        return
    end = 0 if use.source.get("messages") else 1  # how many tokens a template ends a turn with is the engine's to count

    def is_long(entry: Row) -> bool:
        return any(_count_answer(use, entry[key], most) + end > most for key in ("answer", "rejected"))

    long, entries = _long_rows(use, kind, is_long)
    if long:
        what = f"stage `{use.stage.id}`: {len(long)} of {entries} pairs of {use.source[kind]} have an answer of more"
        where = f"tokens than `max_tokens`, {most}: the first is {long[0]}"
        hint = "raise it, or take those lines out: an answer that is cut off would be another one"
        _note(found.problems, Problem(f"{use.place}.config.max_tokens", f"{what} {where}", hint))


def _count_answer(use: _Use, text: str, most: int) -> int:
    """Tokens of an answer, counted as `_count` does: of a short one its bytes."""
    try:
        if (size := len(text.encode("utf-8", "surrogatepass"))) < most:
            return size
        return len(use.tokenizer.encode(text[: CHARACTERS_A_TOKEN * (most + 1)], add_special_tokens=False).ids)
    except Exception:  # such as a character that the vocabulary lacks: the engine tells its text
        return 0


def _look_at_lengths(use: _Use, kind: str, chat: Chat | None, context: int, found: Findings) -> None:
    """Whether the prompts of data files fit, by counting the tokens of its longest ones."""
    tokenizer = use.tokenizer
    long = 0
    worst: tuple[int, int, str] = (0, 0, "")  # tokens in all, of the prompt, and where it stands
    for place, entry in _longest(use, kind, context):
        if tokenizer is None:
            what = f"stage `{use.stage.id}`: prompts of {use.source[kind]} may be longer than the {context} positions"
            hint = "their tokens are counted where the package `tokenizers` is installed, and by engines"
            _note(found.warnings, Problem(f"data.{use.data}.{kind}", f"{what} of model `{use.files.name}`", hint))
            return
        try:
            text = _prompt(use, chat, entry)[: CHARACTERS_A_TOKEN * context]
            prompt = len(tokenizer.encode(text, add_special_tokens=chat is None).ids)
            more = 0 if use.is_of_conversations else use.said
            if more is None:
                answer = entry["answer"][: CHARACTERS_A_TOKEN * context]
                more = len(tokenizer.encode(answer, add_special_tokens=False).ids) + 1
            beyond = _beyond(use, chat, entry, context)
        except Exception:  # such as a character that the vocabulary lacks: the engine tells its text
            continue
        if beyond and use.long != CUT_LEFT:
            continue  # told before, or no part of the data
        prompt -= beyond
        long += prompt + more > context
        worst = max(worst, (prompt + more, prompt, place))
    if long:
        all_, prompt, place = worst
        beside = f"`max_tokens` {use.said}" if use.said is not None else f"an answer of {all_ - prompt}"
        told = f"a prompt of {prompt} tokens and {beside} are"
        if use.is_of_conversations:
            told = f"a conversation of {all_} tokens is"
        others = f" ({long} such lines at least)" if long > 1 else ""
        what = (
            f"stage `{use.stage.id}`: {place}: {told} longer than the context of {context} of model "
            f"`{use.files.name}`{others}"
        )
        hint = "shorten it or take it out, let less be said, or take a model with more positions"
        found.problems.append(Problem(f"data.{use.data}.{kind}", what, hint))


def _asked(use: _Use, entry: Row) -> list[Message]:
    """What the model reads of an entry, but for an answer that stands beside its prompt."""
    if use.is_of_conversations:
        key = use.source["messages"]
        return with_system(read_messages(entry[key], key), use.source.get("system"))
    return put_to_model(entry, use.source.get("messages"), use.source["template"], use.source.get("system"))


def _prompt(use: _Use, chat: Chat | None, entry: Row) -> str:
    """What the model is given for an entry, as engines word it."""
    if chat is not None:
        text = chat.render(_asked(use, entry), use.args, asks=not use.is_of_conversations)
        if use.is_of_conversations:
            return text
    else:
        text = (use.source["template"] or "{prompt}\n").replace("{prompt}", entry["question"])
    return text + (use.source.get("answer_prefix") or "")


def _bounded(use: _Use, chat: Chat | None, entry: Row) -> str:
    """What `max_prompt_tokens` is of: what is asked; where conversations are trained on, and none is left out, what
    stands before the first answer."""
    if chat is None or not use.is_of_conversations:
        return _prompt(use, chat, entry)
    if use.long == DROP:
        asked = put_to_model(entry, use.source["messages"], None, use.source.get("system"))
        return chat.render(asked, use.args) + (use.source.get("answer_prefix") or "")
    messages = _asked(use, entry)
    return chat.render(messages[: next(iter(answers_in(messages)), len(messages))], use.args)


def _beyond(use: _Use, chat: Chat | None, entry: Row, context: int) -> int:
    """Tokens that an entry has beyond `max_prompt_tokens`; of a long text as many as `_look_at_lengths` counts."""
    if use.most is None:
        return 0
    text = _bounded(use, chat, entry)[: CHARACTERS_A_TOKEN * context]
    return max(0, len(use.tokenizer.encode(text, add_special_tokens=chat is None).ids) - use.most)


def _longest(use: _Use, kind: str, context: int) -> list[tuple[str, dict[str, Any]]]:
    """(place, entry) of the longest entries that could be too long: no tokenizer makes more tokens than there are
    bytes, but for a few of its own."""
    budget = context - (use.said or 0) - 64
    found: list[tuple[int, int, str, dict[str, Any]]] = []
    try:
        for number, (place, row) in enumerate(rows_of(kind, use.source[kind], use.files.base, LINES_READ)):
            entry = make_entry(row, Keys.of(use.source))
            is_beside = use.said is None and not use.is_of_conversations
            said = len(entry["answer"].encode("utf-8", "surrogatepass")) if is_beside else 0
            size = said + sum(
                len(message["content"].encode("utf-8", "surrogatepass")) + 32 for message in _asked(use, entry)
            )
            if size > budget:
                found.append((size, number, place, entry))
    except (EntryError, OSError):
        return []  # told with the data
    longest = heapq.nlargest(COUNTED, found, key=lambda item: item[:2])
    return [(place, entry) for _, _, place, entry in longest]


def _tokenizer(files: ModelFiles, found: Findings) -> Any:
    """A `tokenizers.Tokenizer`; None where the package or the file is not here, or the file is wrong, which is told."""
    name = f"{files.folder}/tokenizer.json"
    is_here = importlib.util.find_spec("tokenizers") is not None
    if not is_here or found.problems or not (files.base / name).is_file():
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_buffer((files.base / name).read_bytes())  # opened here: a path may be no UTF-8
    except Exception as error:  # the package raises nothing else
        what = f"model `{files.name}`: {name} is no tokenizer: {' '.join(str(error).split())}"[:300]
        found.problems.append(Problem(files.tokenizer_path, what, ANEW))
        return None
