"""Real-time parts of the gate's process: scheduling priority, and a thread that ticks at a steady rate."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def raise_priority(priority: int) -> str:
    """Schedule every thread of this process by SCHED_FIFO with this priority (1 to 99), as ros2_control's
    controller_manager does; threads created later inherit it. 0 changes nothing.

    Returns the scheduling that applies, in words. Without the right to it (root, or `rtprio` in
    /etc/security/limits.conf) nothing changes, and a busy machine may delay the process.
    """
    if priority == 0:
        return "normal scheduling, as configured"
    try:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(priority))
    except ProcessLookupError:
        return raise_priority(priority)  # a thread has just ended
    except OSError as error:
        return f"normal scheduling: SCHED_FIFO {priority} refused ({error.strerror}); set rtprio in limits.conf"
    return f"SCHED_FIFO {priority}"


class Ticker:
    """Calls `tick` at `rate` Hz by the steady clock, in a thread of its own, until `end`.

    Not a timer of rclpy's executor: waking the executor costs more than most ticks, and a callback that is being
    executed would delay them. After an exception it stops and calls `failed`. Ticks that are more than MAX_DELAY
    periods late are dropped.
    """

    MAX_DELAY = 4

    def __init__(self, rate: float, tick: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self._period, self._tick, self._failed = 1.0 / rate, tick, failed
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticks", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Start no further tick; wait for the present one."""
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
                elif ahead < -self.MAX_DELAY * self._period:
                    due = time.monotonic()
        except Exception as error:
            self._failed(error)
