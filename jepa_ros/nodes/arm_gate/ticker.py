"""Something that is done at a steady rate, in a thread of its own and not as an event of rclpy's executor.

Waking the executor costs more than most of what is done then, and whatever callback is under way comes first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Ticker:
    """Calls `tick` at `rate` Hz by the steady clock until `end`; after an exception never again, and `failed` gets it.

    Ticks that are missed by more than LATE periods are left out.
    """

    LATE = 4

    def __init__(self, rate: float, tick: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self._period, self._tick, self._failed = 1.0 / rate, tick, failed
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticks", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No tick begins after this; waits for the one under way."""
        self._ending.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._ending.is_set():
                self._tick()
                due += self._period
                ahead = due - time.monotonic()
                if ahead > 0.0:
                    time.sleep(ahead)  # more exact than waiting for an event
                elif ahead < -self.LATE * self._period:
                    due = time.monotonic()
        except Exception as error:
            self._failed(error)
