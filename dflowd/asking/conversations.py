"""Conversations of a model with an environment (workers/environment.py), all those of a partition turn by turn.

Of a conversation, everything behind its prompt is one list of tokens that grows: those that were sampled, as they were
sampled, and between them what the environment adds, made into tokens once. Those that are not over take a turn
together: they are sampled as one batch, and their environments are awaited. So which rows share a batch follows from
what was said, and weights stay a function of the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from dflow_protocols.pipeline.entries.conversation import ASSISTANT, Message
from dflowd.data.contract import Data
from dflowd.data.folder import check_files
from dflowd.data.prompts import completion_text, opening_tokens
from dflowd.data.sources import Entry
from dflowd.data.turns import between
from dflowd.jobs.failures import UserError
from dflowd.models.sampling import Sampler, Seats
from dflowd.slots.doing import Doing
from dflowd.workers.outcome import Arguments, Due, Outcome
from dflowd.workers.pool import Terms

from .context import check_context, prompts_of
from .contract import Asked
from .said import ENVIRONMENT, Said

_TALKS = count()  # a partition that is sampled again may say otherwise: what workers remember of it is not gone on with


def converse(asked: Asked, data: Data, entries: Sequence[Entry], width: int, sampler: Sampler) -> Said:
    """`width` conversations about each entry, of `turns` turns at most. Raises UserError, and HostError."""
    return _Talk(asked, data, entries, width, sampler).held()


@dataclass(slots=True)
class _Conversation:
    """One of them while it goes on. `key`: names it to the worker that remembers its environment."""

    key: str
    entry: Entry
    messages: list[Message]
    begins: int = 0  # messages that were there before the model spoke
    tokens: list[int] = field(default_factory=list)  # behind the prompt
    logprobs: list[float] = field(default_factory=list)
    nucleus: list[float] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    is_truncated: bool = False
    is_over: bool = False

    def add(self, tokens: Sequence[int], logprobs: Sequence[float], nucleus: Sequence[float], turn: int) -> None:
        self.tokens += tokens
        self.logprobs += logprobs
        self.nucleus += nucleus
        self.turn += [turn] * len(tokens)

    def end(self, is_truncated: bool = False) -> None:
        self.is_over, self.is_truncated = True, is_truncated

    def fail(self, reward: float) -> None:
        """Its environment answers no more: what it earned is this."""
        self.rewards = [reward, *[0.0] * len(self.rewards)]
        self.is_over = True

    def said_last(self) -> str:
        return str(next((m["content"] for m in reversed(self.messages[self.begins :]) if m["role"] == ASSISTANT), ""))


class _Talk:
    """All conversations of a partition, turn by turn."""

    def __init__(self, asked: Asked, data: Data, entries: Sequence[Entry], width: int, sampler: Sampler) -> None:
        self._asked, self._data, self._entries, self._sampler = asked, data, entries, sampler
        self._config: Mapping[str, Any] = asked.stage.config["environment"]
        self._model = asked.description()
        self._width = width
        talk = next(_TALKS)
        self._all = [
            _Conversation(f"{talk}/{row}", entry, [])
            for row, entry in enumerate(each for each in entries for _ in range(width))
        ]
        self._failed: list[Outcome] = []

    def held(self) -> Said:
        openings = self._begin()
        prompts = self._prompts(openings)
        most, turns = int(self._asked.stage.config["max_tokens"]), int(self._config["turns"])
        check_context(self._asked, self._data, self._entries, prompts, [most] * len(prompts), "`max_tokens`")
        for turn in range(turns):
            live = [at for at, each in enumerate(self._all) if not each.is_over]
            if not live:
                break
            self._speak(prompts, live, turn, most)
            self._answer([self._all[at] for at in live], turn + 1 == turns, most)
        lengths = np.array([len(each.tokens) for each in self._all], np.int32)
        has_nucleus = any(each.nucleus for each in self._all)
        return Said(
            prompts,
            np.array([token for each in self._all for token in each.tokens], np.int32),
            np.array([value for each in self._all for value in each.logprobs], np.float32),
            lengths,
            np.array([each.is_truncated for each in self._all], np.bool_),
            [each.said_last() for each in self._all],
            np.array([value for each in self._all for value in each.nucleus], np.float32) if has_nucleus else None,
            openings,
            np.array([turn for each in self._all for turn in each.turn], np.int32),
            [each.messages[each.begins :] for each in self._all],
            [each.rewards for each in self._all],
            len(self._failed),
            sum(not outcome.is_of_inputs for outcome in self._failed),
            len(self._failed) if self._config.get("on_error") == "zero" else 0,
            self._failed[0].error if self._failed else "",
        )

    def _begin(self) -> list[list[Message]]:
        """Of each group the messages that are put to the model. Raises UserError where they differ within it: what is
        compared has to begin alike."""
        found = self._ask(self._all, told=0, is_last=False)
        openings = []
        for group, entry in enumerate(self._entries):
            given = [each for each in found[group * self._width : (group + 1) * self._width] if each is not None]
            if any(each["messages"] != given[0]["messages"] for each in given):
                raise UserError(
                    f"{self._config['class']}.reset gave the conversations of one prompt different beginnings: they "
                    "are compared with each other; say at the first `step` what differs",
                    self._asked.stage.id,
                )
            worded = self._data.wording_of(entry).conversation(entry)
            openings.append((given[0]["messages"] if given else None) or worded)
        for at, each in enumerate(self._all):
            each.messages = list(openings[at // self._width])
            each.begins = len(each.messages)
        return openings

    def _prompts(self, openings: Sequence[list[Message]]) -> list[list[int]]:
        """As the data words them, where `reset` said nothing else."""
        prompts = []
        for entry, opening in zip(self._entries, openings, strict=True):
            wording = self._data.wording_of(entry)
            if opening == wording.conversation(entry):
                prompts += prompts_of(self._asked, self._data, [entry])
            else:
                prompts.append(self._read(partial(opening_tokens, self._model.tokenizer, opening, wording)))
        return prompts

    def _speak(self, prompts: Sequence[list[int]], live: Sequence[int], turn: int, most: int) -> None:
        """The model's turn in these conversations, one batch. At the first one all read the same prompts."""
        is_whole = turn == 0 and len(live) == len(self._all)
        texts = prompts if is_whole else [prompts[at // self._width] + self._all[at].tokens for at in live]
        places = np.array(live, np.uint64)
        said = np.array([len(self._all[at].tokens) for at in live], np.uint64)
        width, first = np.uint64(self._width), np.uint64(self._asked.first)
        seats = Seats(first + places // width, places % width, said, most - said.astype(np.int64))
        made = self._asked.sample(texts, seats, self._sampler)
        for row, at in enumerate(live):
            conversation, length = self._all[at], int(made.lengths[row])
            tokens = made.tokens[row, :length].tolist()
            within = [] if made.nucleus is None else made.nucleus[row, :length].tolist()
            conversation.add(tokens, made.logprobs[row, :length].tolist(), within, turn)
            text = completion_text(self._model.tokenizer, tokens)
            conversation.messages.append({"role": ASSISTANT, "content": text})
            conversation.is_truncated = bool(made.truncated[row])

    def _answer(self, live: Sequence[_Conversation], is_last: bool, most: int) -> None:
        """The environments' turn. A conversation that was cut off is over, and its environment is told so far, too."""
        found = self._ask(live, told=1, is_last=is_last)
        for conversation, answer in zip(live, found, strict=True):
            if answer is None:
                continue
            conversation.rewards.append(answer["reward"])
            if answer["done"] or is_last or conversation.is_truncated:
                conversation.is_over = True
                conversation.messages += answer["messages"]
                continue
            self._go_on(conversation, answer["messages"], most)

    def _go_on(self, conversation: _Conversation, added: Sequence[Message], most: int) -> None:
        """What the environment adds becomes tokens, unless no room would be left for the model behind them."""
        wording = self._data.wording_of(conversation.entry)
        messages = [*conversation.messages, *added]
        last = conversation.tokens[-1] if conversation.tokens else None
        tokens = self._read(partial(between, self._model.tokenizer, wording, messages, last, self._model.stops))
        if len(conversation.tokens) + len(tokens) >= most:
            conversation.end(is_truncated=True)
            return
        blank = [0.0] * len(tokens)
        conversation.add(tokens, blank, blank if conversation.nucleus else [], ENVIRONMENT)
        conversation.messages = messages

    def _read(self, made: Callable[[], list[int]]) -> list[int]:
        """Tokens of what the environment said. Raises UserError where the model has none for it."""
        try:
            tokens = made()
        except UserError as error:
            raise UserError(f"what `{self._config['class']}` said: {error}", self._asked.stage.id) from error
        if max(tokens, default=0) >= self._model.rows:
            what = f"token {max(tokens)} of what `{self._config['class']}` said is beyond the vocabulary of model"
            hint = "take the tokenizer that belongs to the model"
            raise UserError(f"{what} `{self._model.name}`; {hint}", self._asked.stage.id)
        return tokens

    def _ask(self, those: Sequence[_Conversation], told: int, is_last: bool) -> list[dict[str, Any] | None]:
        """What each one's environment answers; None where it failed, which then is over. `told`: 0 for its beginning.
        Raises UserError where that ends the run, and HostError where this host has another environment."""
        name, config, asked = str(self._config["class"]), self._config, self._asked
        on_error = config.get("on_error", "fail")
        terms = Terms(float(config.get("timeout_s", 30.0)), int(config.get("concurrency", 8)), on_error == "fail")
        calls = [self._call(each, told, is_last) for each in those]
        try:
            with asked.board.showing(Doing(asked.stage.id, f"it waited for `{name}`")):
                outcomes = asked.workers().map(name, calls, Due(is_turn=True), terms, asked.progress)
        except UserError as error:
            raise UserError(str(error), asked.stage.id) from error
        check_files(asked.pipeline, asked.code, name)  # after the import: a file may be replaced at any moment
        found: list[dict[str, Any] | None] = []
        for conversation, outcome in zip(those, outcomes, strict=False):
            if outcome.error and on_error == "fail":
                raise UserError(outcome.error, asked.stage.id)
            if outcome.error:
                conversation.fail(0.0 if on_error == "zero" else np.nan)
                self._failed.append(outcome)
            found.append(None if outcome.error else outcome.value)
        return found

    def _call(self, conversation: _Conversation, told: int, is_last: bool) -> Arguments:
        named = {
            "key": conversation.key,
            "args": self._config["args"],
            "entry": conversation.entry,
            "messages": conversation.messages,
            "begins": conversation.begins,
            "is_last": is_last or conversation.is_truncated,
        }
        return Arguments((), named, conversation.key, len(conversation.rewards) if told else 0)
