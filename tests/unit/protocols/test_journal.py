"""The journal: a reader learns of every change, or that it has to begin anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.journal import MAX_KEYS, UNREAD, Journal


def test_who_has_read_nothing_must_derive_all() -> None:
    assert Journal[int]().since(UNREAD) is None


def test_a_reader_learns_what_came_since_it_read() -> None:
    journal = Journal[str]()
    journal.note("a")
    place = journal.end
    assert journal.since(place) == []
    journal.note("b")
    journal.note("a")
    assert journal.since(place) == ["b", "a"]


def test_after_a_change_of_anything_every_reader_begins_anew() -> None:
    journal = Journal[str]()
    place = journal.end
    journal.note_all()
    assert journal.since(place) is None
    assert journal.since(journal.end) == []


@given(st.lists(st.sampled_from(["note", "all", "read"]), max_size=30))
def test_no_change_is_missed(steps: list[str]) -> None:
    """Whatever the order of changes and reads, a reader that follows learns of each."""
    journal, place = Journal[int](), 0
    missed: list[int] | None = []
    for number, step in enumerate(steps):
        if step == "note":
            journal.note(number)
            missed = None if missed is None else [*missed, number]
        elif step == "all":
            journal.note_all()
            missed = None
        else:
            assert journal.since(place) == missed
            place, missed = journal.end, []


def test_a_journal_that_nobody_reads_stays_short() -> None:
    """Its reader may be gone for good; what it missed is no reason to keep more and more."""
    journal = Journal[int]()
    for number in range(3 * MAX_KEYS):
        journal.note(number)
    assert journal.since(0) is None
    kept = journal.since(journal.end - 1)
    assert kept == [3 * MAX_KEYS - 1]
