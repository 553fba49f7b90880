"""A chat template tried on a conversation before a run is submitted, as engines will use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import meta, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dflow_protocols.pipeline.entries.conversation import MARKS, Message
from dflow_protocols.pipeline.models import TEMPLATE_DAY


class TemplateFault(Exception):
    """A template that cannot be worked with. `what`, `hint`: for people."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says; here it is only text."""

    tags = {"generation"}  # noqa: RUF012 (as the base class declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Chat:
    """A chat template, with the names that transformers gives it. Raises TemplateFault for a text that is none."""

    def __init__(self, template: str, special_tokens: dict[str, str]) -> None:
        self.asks_for_the_day = False
        """Whether the conversation tried last asked for today's date, which is told as one day always."""
        self._special_tokens = special_tokens
        self.marks_answers = MARKS.search(template) is not None
        """Whether it tells by itself what an assistant says."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.filters["random"] = _refuse_chance
        environment.globals |= {
            "lipsum": _refuse_chance,
            "raise_exception": _raise,
            "strftime_now": self._day,
        }
        try:
            self._template = environment.from_string(template)
            self.asks_for: frozenset[str] = frozenset(meta.find_undeclared_variables(environment.parse(template)))
            """Names that it may be told, beside those of its own."""
        except TemplateSyntaxError as error:
            raise TemplateFault(f"line {error.lineno}: {error.message}", "correct the template") from error
        except (TemplateError, RecursionError) as error:
            raise TemplateFault(str(error), "correct the template") from error

    def render(self, messages: Sequence[Message], args: Mapping[str, Any], *, asks: bool = True) -> str:
        """What the model is given for a conversation. `args`: what the template is told beside; `asks`: an answer is
        to come. Raises TemplateFault."""
        told = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": asks}
        try:
            return self._template.render(**told, **(self._special_tokens | dict(args)))
        except Exception as error:  # a template is a program of others: whatever it does wrong is told as its own
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            hint = "prompts come as the data says: change the template, or write `chat: false`"
            raise TemplateFault(f"it raises an error on a prompt: {what}", hint) from error

    def _day(self, form: str) -> str:
        self.asks_for_the_day = True
        return datetime.fromisoformat(TEMPLATE_DAY).strftime(form)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _refuse_chance(*_: Any, **__: Any) -> NoReturn:
    raise TemplateError("it draws at random, so the same pipeline would ask otherwise each time")


def _to_json(value: Any, ensure_ascii: bool = False, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **more)
