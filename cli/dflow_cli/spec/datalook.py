"""Data files looked at before a run is submitted: their rows, how many are held out, and what stages want of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline import Pipeline, Problem, Stage
from dflow_protocols.pipeline.entries.conversation import answers_in
from dflow_protocols.pipeline.entries.entry import Keys, Row, hashed_text, is_held_out, make_entry
from dflow_protocols.pipeline.entries.mixing import sets_in
from dflow_protocols.pipeline.entries.parts import parts_of
from dflow_protocols.pipeline.entries.problem import EntryError
from dflow_protocols.pipeline.entries.rows import how_to_open, read_rows
from dflow_protocols.pipeline.entries.settings import data_of
from dflow_protocols.pipeline.entries.tables import INSTALL, NEEDS_PYARROW, is_readable
from dflow_protocols.pipeline.files import Named
from dflow_protocols.pipeline.grammar.problem import Findings
from dflow_protocols.pipeline.grammar.signatures import DEFAULT_REWARD

from .diskfolder import DiskFolder

LINES_READ = 100_000  # of a data set, so that a submit takes no minutes; engines read all
MISTAKES_TOLD = 3  # of one data file; the others are counted


@dataclass(slots=True)
class _Counts:
    """Entries of a file: those trained on, the different questions held out, and those whose answer is empty."""

    name: str  # of the data
    file: str
    entries: int = 0
    training: int = 0
    held_out: set[str] = field(default_factory=set)
    unanswered: int = 0
    without_answer: str = ""  # where the first conversation stands that has no turn of the assistant
    more: bool = False  # than LINES_READ lines: then the counts are of the first ones

    def add(self, question: str, *, is_held_out: bool, is_answered: bool) -> None:
        """One more entry."""
        self.entries += 1
        self.unanswered += not is_answered
        if is_held_out:
            self.held_out.add(question)
        else:
            self.training += 1

    def find_no_answer(self, place: str) -> None:
        """A conversation that nobody answers stands there."""
        self.without_answer = self.without_answer or place

    def cut(self) -> None:
        """There are more lines than are read."""
        self.more = True


def look_at_data(named: Named, pipeline: Pipeline, base: Path) -> Findings:
    """What is wrong with data files, and what is doubtful about them beside the stages that read them."""
    if not is_readable(named.kind):
        what = f"{named.name} is not looked at: pyarrow, which reads `{named.kind}` files, is not installed here"
        return Findings([], [Problem(named.path, what, f"engines need it: {INSTALL}")])
    counts = _Counts(named.path.split(".")[1], named.name)
    try:
        found = Findings(_read(named, pipeline, base, counts))
    except EntryError as error:
        return Findings([Problem(named.path, error.what, error.hint)])
    if found.problems:
        return found
    if counts.more:
        what = f"{named.name}: only the first {LINES_READ} lines were looked at; engines read all"
        found.warnings.append(Problem(named.path, what, "a mistake in a later line ends the run when it is read"))
    found.problems += _nothing_said(counts, pipeline)
    if counts.more:
        return found
    found.problems += _nothing_there(counts, pipeline)
    if not found.problems:
        found.warnings += _too_few(counts, pipeline)
        found.warnings += _nothing_to_match(counts, pipeline)
    return found


def _read(named: Named, pipeline: Pipeline, base: Path, counts: _Counts) -> list[Problem]:
    """The mistakes in the rows, the first ones word for word and then their number; `counts` is filled in. Raises
    EntryError for files that are not meant to be read as one."""
    source = pipeline.data[counts.name]
    held_out = source["held_out"] or {"by": "", "share": 0.0}
    mistakes: list[Problem] = []
    total = read = 0
    for place, row in rows_of(named.kind, named.name, base, LINES_READ + 1):
        read += 1
        if read > LINES_READ:
            counts.cut()
            break
        try:
            entry = make_entry(row, Keys.of(source))
        except EntryError as error:
            total += 1
            if total <= MISTAKES_TOLD:
                mistakes.append(Problem(named.path, f"{place}: {error.what}", error.hint))
            continue
        question = hashed_text(entry["question"], held_out["by"])
        is_answered = bool(entry["answer"].strip())
        if (key := source.get("messages")) is not None and not answers_in(entry[key]):
            counts.find_no_answer(place)
        counts.add(question, is_held_out=is_held_out(question, held_out["share"]), is_answered=is_answered)
    if total > MISTAKES_TOLD:
        where = f" in its first {LINES_READ} lines" if counts.more else ""
        what = f"{named.name}: {total - MISTAKES_TOLD} more lines are no entries, {total} of {read}{where}"
        mistakes.append(Problem(named.path, what, "correct those told first: most files have one mistake many times"))
    if not read:
        mistakes.append(Problem(named.path, f"{named.name} has no entries", "give it a prompt and an answer at least"))
    return mistakes


def rows_of(kind: str, name: str, base: Path, most: int) -> Iterator[tuple[str, Row | EntryError]]:
    """The first rows of data files, each with its place, `FILE:LINE` or `FILE:ROW`. Raises OSError, and EntryError for
    a folder that is not meant to be read as one."""
    for part in parts_of(kind, name, DiskFolder(base)):
        with (base / part).open(**how_to_open(kind)) as file:
            for number, row in itertools.islice(read_rows(kind, file, _pyarrow(kind)), most):
                yield (f"{part}:{number}" if number else part), row
                most -= 1


def _pyarrow(kind: str) -> Any:
    """pyarrow, where files of this format need it: loaded by nobody else."""
    if kind not in NEEDS_PYARROW:
        return None
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    return pyarrow


def _readers(name: str, pipeline: Pipeline) -> Iterator[tuple[str, Stage, bool]]:
    """(place, stage, whether it reads the held-out part) of the stages that read this data."""
    for index, stage in enumerate(pipeline.stages):
        source, dot, _ = str(stage.config.get("data", "")).partition(".")
        if source == name:
            yield f"stages[{index}]", stage, bool(dot)


def _nothing_there(counts: _Counts, pipeline: Pipeline) -> Iterator[Problem]:
    """A part of the data that a stage reads and that has no entry: the run would fail where it is first read."""
    path = f"data.{counts.name}.held_out.share"
    holds_out = pipeline.data[counts.name]["held_out"] is not None  # of a mixture's data sets some may hold nothing out
    readers = [
        (stage, str(stage.config["data"]).endswith(".held_out"))
        for stage in pipeline.stages
        if counts.name in sets_in(pipeline.data, data_of(stage.config))
    ]
    for stage, is_held_out_part in readers:
        if is_held_out_part and holds_out and not counts.held_out:
            what = f"`{stage.id}` evaluates what is held out, and the share holds out none of {_entries(counts)}"
            yield Problem(path, what, "raise `share`, or add prompts; which are held out follows from their texts")
            return
    for stage, is_held_out_part in readers:
        if not is_held_out_part and not counts.training:
            what = f"all of {_entries(counts)} are held out, and `{stage.id}` reads the others"
            yield Problem(path, what, "lower `share`, or add prompts; which are held out follows from their texts")
            return


def _nothing_said(counts: _Counts, pipeline: Pipeline) -> Iterator[Problem]:
    """A conversation without an answer where answers are trained on."""
    for index, stage in enumerate(pipeline.stages):
        is_read = counts.name in sets_in(pipeline.data, data_of(stage.config))
        if counts.without_answer and stage.operator.trains and is_read:
            what = f"stage `{stage.id}`: {counts.without_answer}: no turn of the assistant, so nothing to train on"
            yield Problem(f"stages[{index}].config.data", what, "give the conversation an answer, or take it out")


def _too_few(counts: _Counts, pipeline: Pipeline) -> Iterator[Problem]:
    """Stages that want more entries than there are: they get some of them again, or fewer than they say."""
    source = pipeline.data[counts.name]
    if source["held_out"] is not None and not counts.held_out:
        what = f"the share holds out none of {_entries(counts)}"
        yield Problem(f"data.{counts.name}.held_out.share", what, "raise `share`, or leave `held_out` out")
    for place, stage, is_held_out_part in _readers(counts.name, pipeline):
        begins = stage.operator.begins
        if begins is None:
            continue
        there = len(counts.held_out) if is_held_out_part else counts.training
        key = begins.entries
        wanted = stage.config[key]
        if wanted > there:
            kind = "different ones held out" if is_held_out_part else "entries to train on"
            then = "all of them are evaluated" if is_held_out_part else "some come twice"
            what = f"stage `{stage.id}`: `{key}` is {wanted}, and {counts.file} has {there} {kind}: {then}"
            path = f"{place}.config.{key}"
            if is_held_out_part and wanted == source["held_out"]["count"]:
                path = f"data.{counts.name}.held_out.count"
            yield Problem(path, what, f"lower `{path.rpartition('.')[2]}`, or add entries")
        if stage.operator.trains and counts.unanswered and source.get("messages") is None:
            what = f"stage `{stage.id}`: {counts.unanswered} answers of {counts.file} are empty: it is taught silence"
            yield Problem(f"{place}.config.data", what, "take those lines out, or name another key as `answer`")


def _nothing_to_match(counts: _Counts, pipeline: Pipeline) -> Iterator[Problem]:
    """Empty answers where completions are compared with them, such as those of conversations that end in a question."""
    if not counts.unanswered:
        return
    for index, stage in enumerate(pipeline.stages):
        if not stage.operator.scores or stage.config["function"] != DEFAULT_REWARD:
            continue
        makers = (pipeline.stage(read.partition(".")[0]) for read in stage.reads if read.endswith(".rollout"))
        if counts.name in sets_in(pipeline.data, data_of(next(makers, stage).config)):
            what = f"stage `{stage.id}`: {counts.unanswered} answers of {counts.file} are empty"
            hint = "name the key of the answer by `answer`, or judge by a function of your own"
            yield Problem(f"stages[{index}].config.function", f"{what}: only who says nothing is right", hint)
            return


def _entries(counts: _Counts) -> str:
    return f"{counts.entries} entr{'y' if counts.entries == 1 else 'ies'} of {counts.file}"
