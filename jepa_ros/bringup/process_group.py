"""A group of child processes that are started, monitored and ended together."""

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
END_TIMEOUT = 12.0  # s; a node ends within 10 s (nodes.common.process), so one that still runs is stuck


@dataclass(frozen=True)
class Command:
    """One process to run. nice: added to the parent's niceness, 0 to 19."""

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
        if self.code >= 0:
            return f"{self.name} ended with code {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = f"signal {-self.code}"
        return f"{self.name} was ended by {name}"


@dataclass
class _Child:
    command: Command
    process: subprocess.Popen
    reader: threading.Thread
    lines: deque = field(default_factory=lambda: deque(maxlen=20))
    ended_at: float | None = None  # steady time, set while it waits to be restarted


class ProcessGroup:
    """Runs commands as children, each in its own session, so that only ``stop`` ends them, not Ctrl-C.

    on_line(name, line) is called with every line of a child's output (stdout and stderr), in a thread of that child.
    ``poll`` reports a child that has ended, or restarts it after ``respawn_delay`` s. Children do not outlive this
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
        """Start every command. If one cannot be started, the others are ended and the OSError is raised."""
        try:
            for command in self._commands:
                self._children[command.name] = self._spawn(command)
        except OSError:
            self.stop()
            raise

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each command, by name; after a restart, that of the new process."""
        return {name: child.process.pid for name, child in self._children.items()}

    def poll(self) -> Ended | None:
        """Return a process that has ended by itself, or None; with respawn, restart it instead."""
        for name, child in self._children.items():
            code = child.process.poll()
            if code is None:
                continue
            if not self._respawn:
                child.reader.join(timeout=1.0)  # until its last lines are read
                return Ended(name, code, tuple(child.lines))
            now = time.monotonic()
            if child.ended_at is None:
                child.ended_at = now
                self._on_line(name, f"{Ended(name, code)}; restarting in {self._respawn_delay:g} s")
            elif now - child.ended_at >= self._respawn_delay:
                self._children[name] = self._spawn(child.command)
        return None

    def stop(self, timeout: float = END_TIMEOUT) -> dict[str, int]:
        """Send SIGTERM to all, kill those that still run after `timeout` s, and return the exit codes by name."""
        running = [child.process for child in self._children.values() if child.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout
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
    """Return the function that a child runs between fork and exec. It must not allocate much or take locks."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only

    def setup() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent died in the meantime
                os._exit(1)
        if nice:
            os.nice(nice)

    return setup
