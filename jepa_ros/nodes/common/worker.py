"""The thread that owns torch, beside the executor's thread. It runs one job at a time, frames before requests.

If frames arrive faster than they are processed, a request still gets its turn after REQUEST_MAX_WAIT.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from rclpy.task import Future

from jepa_ros.errors import InputError

REQUEST_MAX_WAIT = 0.5  # s after which a request runs before frames
_NO_MEMORY = ("out of memory", "allocate memory", "insufficient memory", "not enough memory", "bad_alloc")


class Worker:
    """Runs jobs in its own thread: frames first, of which only the newest `backlog` are kept, then requests."""

    def __init__(self, on_error: Callable[[Exception], None], backlog: int = 2):
        self._frames: deque[Callable[[], None]] = deque()
        self._requests: deque[tuple[float, Callable[[], None]]] = deque()  # with the steady time of their arrival
        self._backlog, self._on_error = backlog, on_error
        self._condition = threading.Condition()
        self._ending = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="torch", daemon=True)
        self._thread.start()

    def submit_latest(self, job: Callable[[], None]) -> None:
        """Run a job for a frame soon; if more than the backlog are waiting, the oldest is dropped and counted."""
        with self._condition:
            self._frames.append(job)
            while len(self._frames) > self._backlog:
                self._frames.popleft()
                self.dropped += 1
            self._condition.notify()

    def submit(self, request: Callable[[], object], executor) -> Future:
        """Run a request when no frame is waiting; return a future of its result or exception.

        executor: the one whose callback awaits the future.
        """
        future = Future(executor=executor)
        future.add_done_callback(lambda _: None)  # without a callback, rclpy does not wake the executor

        def job() -> None:
            try:
                future.set_result(request())
            except Exception as error:
                future.set_exception(error)

        with self._condition:
            self._requests.append((time.monotonic(), job))
            self._condition.notify()
        return future

    def run_latest_first(self) -> None:
        """Run waiting frames, between the slices of a long request; to be called in the worker's thread.

        Runs at most `backlog` of them, so that the request makes progress even if frames never stop.
        """
        for _ in range(self._backlog):
            with self._condition:
                if not self._frames or self._ending:
                    return
                job = self._frames.popleft()
            self._run_job(job)

    def close(self) -> None:
        """Finish the present job, drop the others, and end the thread."""
        with self._condition:
            self._ending = True
            self._frames.clear()
            self._requests.clear()
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._frames or self._requests or self._ending)
                if self._ending:
                    return
                job = self._next_job()
            self._run_job(job)

    def _next_job(self) -> Callable[[], None]:
        requests = self._requests
        if requests and (not self._frames or time.monotonic() - requests[0][0] > REQUEST_MAX_WAIT):
            return requests.popleft()[1]
        return self._frames.popleft()

    def _run_job(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            # Without memory the report may fail as well; the thread must survive that.
            with contextlib.suppress(Exception):
                self._on_error(error)


def describe_error(error: Exception) -> str:
    """Return an error as one line: an InputError's own text, otherwise the kind of error and its first line."""
    if isinstance(error, InputError):
        return str(error)
    text = _first_line(error)
    return f"out of memory ({text})" if is_out_of_memory(error) else f"failed with {type(error).__name__}: {text}"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means out of memory; torch raises a RuntimeError that only its text identifies."""
    text = _first_line(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _NO_MEMORY)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
