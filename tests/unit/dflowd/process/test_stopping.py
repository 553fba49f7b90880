"""Asked to stop: the question is heard by whichever thread the kernel tells."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

ASKED = """
import signal, threading, time
from dflowd.process.stopping import StopSignals

signals, asked = StopSignals(), threading.Event()
signals.serve(asked.set, 60.0, print)
(watcher,) = [thread for thread in threading.enumerate() if thread.name == "stop"]
while open(f"/proc/self/task/{watcher.native_id}/stat").read().rpartition(")")[2].split()[0] != "S":
    time.sleep(0.01)  # until it waits
signal.pthread_kill(watcher.ident, signal.SIGTERM)
until = time.monotonic() + 30.0
while not asked.wait(0.01):  # in naps: handlers run in the main thread, once it is awake
    assert time.monotonic() < until, "nobody was asked to leave"
print("leaves")
"""


def test_a_signal_that_a_waiting_thread_gets_is_heard() -> None:
    """The kernel gives a process's signal to any of its threads, and one that is stopped and goes on is interrupted,
    too: the thread that waits for the question must outlive both."""
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "leaves\n"), done.stderr


TWICE = """
import os, signal
from dflowd.process.stopping import SAME_S, StopSignals

now = [0.0]
signals = StopSignals(lambda: now[0])
signals._is_serving = True
for number, later_s in ((signal.SIGTERM, 0), (signal.SIGTERM, SAME_S / 3), (signal.SIGHUP, SAME_S / 3), (15, SAME_S)):
    now[0] += later_s
    os.kill(os.getpid(), number)
    print(os.eventfd_read(signals._came) if later_s in (0, SAME_S) else signal.Signals(number).name)
"""


def test_a_signal_that_is_told_twice_is_one() -> None:
    """`timeout 8h dflowd run` sends SIGTERM to the daemon, and to its group; a terminal that closes tells by its kernel
    and by its shell: the second one ended the daemon before it had handed anything over."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "SIGTERM", "SIGHUP", "1"]), done.stderr


WITHIN = """
import os, signal, sys
from dflowd.process.stopping import StopSignals

asked = 0

def clock():
    global asked
    asked += 1
    if asked == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGTERM)
    return 0.0

signals = StopSignals(clock)
signals._is_serving = True
os.kill(os.getpid(), signal.SIGTERM)
print(os.eventfd_read(signals._came))
"""


@pytest.mark.parametrize("at", ["1", "2"])
def test_a_signal_that_is_taken_within_another_one_is_the_same(at: str) -> None:
    """`timeout` sends both within microseconds, so the second one may find the first one half taken."""
    done = subprocess.run([sys.executable, "-c", WITHIN, at], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


AGAIN = """
import os, signal, threading, time
from dflowd.process.stopping import SAME_S, StopSignals

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may be deaf to it
now = [0.0]
signals, asked = StopSignals(lambda: now[0]), threading.Event()
signals.serve(asked.set, 60.0, print)
os.kill(os.getpid(), signal.SIGTERM)
assert asked.wait(30.0), "nobody was asked to leave"
now[0] += SAME_S
os.kill(os.getpid(), signal.SIGINT)
end = time.monotonic() + 30.0
while time.monotonic() < end:  # a signal that came just before a long wait may be taken after it
    pass
"""


def test_a_second_signal_ends_a_leaving_daemon_at_once() -> None:
    """Who sends it does not want to wait for what only this node holds; it need not be the same signal."""
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
