"""One thread that owns torch, beside the executor's thread: frames first, then questions, one at a time.

Where frames come faster than they are done with, a question still gets its turn after PATIENCE.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from rclpy.task import Future

from jepa_ros.errors import InputError

PATIENCE = 0.5
"""s after which a question goes before frames."""

_NO_MEMORY = ("out of memory", "allocate memory", "insufficient memory", "not enough memory", "bad_alloc")


class Worker:
    """Runs jobs in a thread of its own. `urgent` jobs go first, and of them only the newest `backlog` are kept."""

    def __init__(self, on_error: Callable[[Exception], None], backlog: int = 2):
        self._urgent: deque[Callable[[], None]] = deque()
        self._patient: deque[tuple[float, Callable[[], None]]] = deque()  # with the steady time of the question
        self._backlog, self._on_error = backlog, on_error
        self._condition = threading.Condition()
        self._ending = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="torch", daemon=True)
        self._thread.start()

    def submit_latest(self, job: Callable[[], None]) -> None:
        """Run soon; where more are waiting than the backlog, the oldest is dropped and counted."""
        with self._condition:
            self._urgent.append(job)
            while len(self._urgent) > self._backlog:
                self._urgent.popleft()
                self.dropped += 1
            self._condition.notify()

    def submit(self, question: Callable[[], object], executor) -> Future:
        """Run when nothing is urgent; the future (to be awaited in a callback of `executor`) gets what it returns or
        raises."""
        future = Future(executor=executor)
        future.add_done_callback(lambda _: None)  # without one rclpy does not wake the executor for what awaits this

        def job() -> None:
            try:
                future.set_result(question())
            except Exception as error:
                future.set_exception(error)

        with self._condition:
            self._patient.append((time.monotonic(), job))
            self._condition.notify()
        return future

    def run_latest_first(self) -> None:
        """Called between the slices of a long patient job, in the worker's thread: runs what is urgent first.

        No more than the backlog: where frames never end, the patient job still goes on.
        """
        for _ in range(self._backlog):
            with self._condition:
                if not self._urgent or self._ending:
                    return
                job = self._urgent.popleft()
            self._guarded(job)

    def close(self) -> None:
        """Finish the job under way, drop the rest, end the thread."""
        with self._condition:
            self._ending = True
            self._urgent.clear()
            self._patient.clear()
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._urgent or self._patient or self._ending)
                if self._ending:
                    return
                job = self._next()
            self._guarded(job)

    def _next(self) -> Callable[[], None]:
        waited = self._patient and time.monotonic() - self._patient[0][0]
        if self._patient and (not self._urgent or waited > PATIENCE):
            return self._patient.popleft()[1]
        return self._urgent.popleft()

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            # Out of memory the report may fail as well; the thread outlives that, or nothing would ever run again.
            with contextlib.suppress(Exception):
                self._on_error(error)


def describe_error(error: Exception) -> str:
    """Return an error as one line: an InputError's own text, otherwise the kind of failure and its first line."""
    if isinstance(error, InputError):
        return str(error)
    text = _first_line(error)
    return f"out of memory ({text})" if is_out_of_memory(error) else f"failed with {type(error).__name__}: {text}"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; torch raises a RuntimeError then, which only its text tells apart."""
    text = _first_line(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _NO_MEMORY)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
