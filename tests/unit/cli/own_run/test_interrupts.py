"""What signals do to a command with daemons of its own."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from dflow_cli.own_run.interrupts import SAME_S, SIGNALS, Interrupts


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_way_to_end_a_command_is_ctrl_c(number: signal.Signals) -> None:
    """A service manager's SIGTERM and a terminal that closes must not lose what Ctrl-C keeps."""
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            send(number)
        assert interrupts.count == 1


def test_a_terminal_that_closes_is_one_interrupt_though_it_says_so_twice() -> None:
    """The kernel and the shell both send SIGHUP; the second must not end what the first began to save."""
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGHUP)
        send(signal.SIGHUP)
        assert interrupts.count == 1


@pytest.mark.parametrize("number", SIGNALS[:2])
def test_an_interrupt_that_is_told_twice_is_one(number: signal.Signals) -> None:
    """`timeout 8h dflow run SPEC` sends SIGTERM to the command, and to its group: all steps since the last checkpoint
    were lost, as by somebody who cannot wait. A hand that presses twice takes longer."""
    now = [0.0]
    with Interrupts(lambda: now[0]) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            send(number)
        now[0] += SAME_S / 2
        send(number)
        assert interrupts.count == 1
        now[0] += SAME_S
        with pytest.raises(KeyboardInterrupt):
            send(number)


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupt_that_is_taken_within_another_one_is_the_same(at: int) -> None:
    """`timeout` sends both within microseconds, so the second one may find the first one half taken."""
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        if asked == at:
            send(signal.SIGTERM)
        return 0.0

    with Interrupts(clock) as interrupts, interrupts.finishing("coming home"):
        send(signal.SIGTERM)
    assert interrupts.count == 1


def test_what_nohup_ignores_stays_ignored() -> None:
    """`nohup dflow run SPEC &` is meant to outlive its terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts:
        send(signal.SIGHUP)
        assert interrupts.count == 0


def test_the_first_interrupt_only_speaks_where_the_command_is_nearly_done(capsys: pytest.CaptureFixture[str]) -> None:
    """Results that come home take seconds, and whoever cannot wait says so twice."""
    now = [0.0]
    with Interrupts(lambda: now[0]) as interrupts, interrupts.finishing("coming home"):
        send(signal.SIGINT)
        assert capsys.readouterr().err == "coming home\n"
        now[0] += SAME_S
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_shielded_block_ends_before_an_interrupt_takes_effect() -> None:
    """A library that is half imported ends the process in a crash."""
    done = []
    with Interrupts() as interrupts, contextlib.suppress(KeyboardInterrupt):
        with interrupts.shielded():
            send(signal.SIGINT)
            done.append("the block")
        done.append("what follows")
    assert done == ["the block"]


def test_who_goes_on_pressing_is_still_told_how_it_ended() -> None:
    """A third Ctrl-C while daemons are being ended at once would take the word of where the run can be resumed."""
    now = [0.0]
    with Interrupts(lambda: now[0]) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        interrupts.ignore()
        now[0] += 2 * SAME_S
        send(signal.SIGINT)
        assert interrupts.count == 1
    send(signal.SIGINT)
