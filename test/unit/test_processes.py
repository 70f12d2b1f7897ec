"""Processes of a bring-up are reported by name, end together, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import StringIO

import pytest

from jepa_ros.bringup.process_group import Command, Ended, ProcessGroup
from jepa_ros.bringup.up import make_line_writer

WAIT = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.05)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT
ORDERLY = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (print('resting', flush=True), sys.exit(0)))\n" + WAIT
)


def command(name, code, nice=0):
    return Command(name, [sys.executable, "-c", code], nice)


def until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come to pass in time")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def lines():
    return []


@pytest.fixture
def group(lines):
    made = []

    def make(*commands, **options):
        made.append(ProcessGroup(commands, os.environ, lambda name, line: lines.append((name, line)), **options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop(timeout=1.0)


def test_stop_ends_all_processes_and_returns_their_exit_codes(group, lines):
    running = group(command("a", ORDERLY), command("b", WAIT))
    until(lambda: {("a", "ready"), ("b", "ready")} <= set(lines))
    assert running.poll() is None
    pids = running.pids
    assert running.stop() == {"a": 0, "b": -signal.SIGTERM}
    assert ("a", "resting") in lines
    assert not any(map(alive, pids.values()))


def test_a_process_that_does_not_end_in_time_is_killed(group, lines):
    running = group(command("a", STUBBORN))
    until(lambda: lines)
    began = time.monotonic()
    assert running.stop(timeout=0.3) == {"a": -signal.SIGKILL}
    assert time.monotonic() - began < 5.0


def test_a_process_that_ends_by_itself_is_reported_with_code_and_last_lines(group, lines):
    running = group(command("a", WAIT), command("b", "print('no such robot'); raise SystemExit(2)"))
    ended = until(running.poll)
    assert ended == Ended("b", 2, ("no such robot",))
    assert str(ended) == "b ended with code 2"
    assert str(Ended("c", -signal.SIGKILL)) == "c was ended by SIGKILL"


def test_with_respawn_a_process_is_restarted(group, lines):
    running = group(command("a", WAIT), respawn=True, respawn_delay=0.1)
    until(lambda: lines)
    first = running.pids["a"]
    os.kill(first, signal.SIGKILL)
    until(lambda: running.poll() or running.pids["a"] != first)
    until(lambda: lines.count(("a", "ready")) == 2)
    assert ("a", "a was ended by SIGKILL; restarting in 0.1 s") in lines
    assert not alive(first)


def test_a_command_that_cannot_start_ends_the_processes_before_it(lines):
    group = ProcessGroup([command("a", WAIT), Command("b", ["/nowhere/at/all"])], os.environ)
    with pytest.raises(FileNotFoundError):
        group.start()
    assert not alive(group.pids["a"])


def test_a_process_runs_with_its_niceness(group, lines):
    group(command("a", "import os; print(os.nice(0), flush=True)\n" + WAIT, nice=5))
    assert until(lambda: lines)[0] == ("a", str(min(19, os.nice(0) + 5)))


def test_child_processes_end_when_the_parent_is_killed(tmp_path):
    script = (
        "import os, sys, time\nfrom jepa_ros.bringup.process_group import Command, ProcessGroup\n"
        f"g = ProcessGroup([Command('a', [sys.executable, '-c', {WAIT!r}])], os.environ)\n"
        "g.start(); print(g.pids['a'], flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(child) or _is_zombie(child))


def _is_zombie(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"


def test_output_lines_have_the_node_name_as_prefix():
    out = StringIO()
    say = make_line_writer(["camera", "arm_gate"], out)
    say("camera", "active")
    say("arm_gate", "holding")
    assert out.getvalue() == "  camera | active\narm_gate | holding\n"


def test_a_closed_output_blocks_nothing():
    out = StringIO()
    say = make_line_writer(["camera"], out)
    out.isatty()
    out.close()
    say("camera", "active")
