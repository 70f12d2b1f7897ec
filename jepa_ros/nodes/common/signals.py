"""SIGINT and SIGTERM as a request to stop that a spinning executor notices at once."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable


class StopSignal:
    """Takes SIGINT and SIGTERM over while the process lives; `requested` says whether one has come.

    Python runs signal handlers between bytecodes of the main thread, which sits inside the middleware's wait. So the
    interpreter's wake-up socket ends in a thread of its own, which wakes the executor. Later signals change nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for number in self.SIGNALS:
            signal.signal(number, lambda *_: self._stop.set())
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="stop-signal", daemon=True).start()

    @property
    def requested(self) -> bool:
        return self._stop.is_set()

    def wakes(self, wake: Callable[[], None] | None) -> None:
        """What to call when a signal comes, in another thread; None: nothing, and no call is under way any more."""
        with self._lock:
            self._wake = wake

    def ignore_from_now_on(self) -> None:
        """For the last instants of the process: an impatient second Ctrl-C must not turn a clean end into an error."""
        signal.set_wakeup_fd(-1)
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _listen(self) -> None:
        while self._reader.recv(64):
            with self._lock:
                self._stop.set()
                if self._wake is not None:
                    self._wake()
