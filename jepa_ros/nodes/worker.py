"""One thread that owns torch, beside the executor's thread: frames first, then questions, one at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from rclpy.task import Future


class Worker:
    """Runs jobs in a thread of its own. `urgent` jobs go first, and of them only the newest `backlog` are kept."""

    def __init__(self, on_error: Callable[[Exception], None], backlog: int = 2):
        self._urgent: deque[Callable[[], None]] = deque()
        self._patient: deque[Callable[[], None]] = deque()
        self._backlog, self._on_error = backlog, on_error
        self._condition = threading.Condition()
        self._ending = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="torch", daemon=True)
        self._thread.start()

    def urgent(self, job: Callable[[], None]) -> None:
        """Run soon; where more are waiting than the backlog, the oldest is dropped and counted."""
        with self._condition:
            self._urgent.append(job)
            while len(self._urgent) > self._backlog:
                self._urgent.popleft()
                self.dropped += 1
            self._condition.notify()

    def ask(self, question: Callable[[], object], executor) -> Future:
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
            self._patient.append(job)
            self._condition.notify()
        return future

    def yield_to_urgent(self) -> None:
        """Called between the slices of a long patient job, in the worker's thread: runs what is urgent first."""
        while True:
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
                job = (self._urgent or self._patient).popleft()
            self._guarded(job)

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self._on_error(error)
