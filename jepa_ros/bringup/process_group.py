"""A group of child processes that start together, are watched, and end together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_PR_SET_PDEATHSIG = 1
# s. Nodes give themselves 10 s to bring motion to rest and end; who is still there then is stuck.
END_WITHIN = 12.0


@dataclass(frozen=True)
class Command:
    """One process to run. nice: added to the niceness of the parent, 0 to 19."""

    name: str
    argv: Sequence[str]
    nice: int = 0


@dataclass(frozen=True)
class Ended:
    """A process that ended by itself; ``code`` is negative for a signal, as in subprocess."""

    name: str
    code: int
    last_lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = f"was ended by {_signal_name(-self.code)}" if self.code < 0 else f"ended with code {self.code}"
        return f"{self.name} {how}"


@dataclass
class _Child:
    command: Command
    process: subprocess.Popen
    reader: threading.Thread
    lines: deque = field(default_factory=lambda: deque(maxlen=20))
    ended_at: float | None = None  # steady time, set when it is waiting to be started again


class ProcessGroup:
    """Runs commands as children, each in a session of its own, so that a Ctrl-C reaches them through ``stop`` only.

    on_line(name, line) is called from a thread of each child with every line of its output (stdout and stderr).
    A child that ends is reported by ``poll``, or started again after ``respawn_delay`` s. Children do not outlive this
    process, however it ends. Start and poll from the main thread.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        environment: Mapping[str, str],
        on_line: Callable[[str, str], None] = lambda name, line: None,
        respawn: bool = False,
        respawn_delay: float = 2.0,
    ) -> None:
        self._commands = list(commands)
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        self._on_line = on_line
        self._respawn = respawn
        self._respawn_delay = respawn_delay
        self._children: dict[str, _Child] = {}

    def __enter__(self) -> ProcessGroup:
        self.start()
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def start(self) -> None:
        """Start every command; if one cannot be started, those before it are ended and the OSError is raised."""
        try:
            for command in self._commands:
                self._children[command.name] = self._spawn(command)
        except OSError:
            self.stop()
            raise

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each command, by name; of the latest one where it was started again."""
        return {name: child.process.pid for name, child in self._children.items()}

    def lines(self, name: str) -> tuple[str, ...]:
        """The last lines that a process wrote."""
        return tuple(self._children[name].lines)

    def poll(self) -> Ended | None:
        """The first process found to have ended by itself, or None; with respawn it is started again instead."""
        for name, child in self._children.items():
            code = child.process.poll()
            if code is None:
                continue
            if not self._respawn:
                child.reader.join(timeout=1.0)  # its last words
                return Ended(name, code, tuple(child.lines))
            now = time.monotonic()
            if child.ended_at is None:
                child.ended_at = now
                self._on_line(name, f"{Ended(name, code)}, starts again in {self._respawn_delay:g} s")
            elif now - child.ended_at >= self._respawn_delay:
                self._children[name] = self._spawn(child.command)
        return None

    def stop(self, within: float = END_WITHIN) -> dict[str, int]:
        """Ask all to end at once (SIGTERM), kill who is left after ``within`` s; exit codes by name."""
        running = [child.process for child in self._children.values() if child.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + within
        for process in running:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children.values():
            child.reader.join(timeout=1.0)
        return {name: child.process.returncode for name, child in self._children.items()}

    def _spawn(self, command: Command) -> _Child:
        process = subprocess.Popen(
            list(command.argv),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_child_setup(command.nice, os.getpid()),
        )
        child = _Child(command, process, threading.Thread(target=lambda: self._read(child), daemon=True))
        child.reader.start()
        return child

    def _read(self, child: _Child) -> None:
        for line in child.process.stdout:
            line = line.rstrip("\n")
            child.lines.append(line)
            self._on_line(child.command.name, line)
        child.process.stdout.close()


def _child_setup(nice: int, parent: int) -> Callable[[], None]:
    """What a child does between fork and exec; nothing in it may allocate much or take locks."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only

    def setup() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died in between
                os._exit(1)
        if nice:
            os.nice(nice)

    return setup


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
