"""Real-time parts of the gate's process: scheduling priority, a thread that ticks at a steady rate, and one that sends
set-points in time with the controllers' cycles."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import numpy as np

from jepa_ros.robot.gate.controller_cycles import ControllerCycles, SetpointSchedule


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


MISSES = 0.1  # of the period: a set-point sent later than that before its cycle comes too late


class SetpointSender:
    """Sends one set-point in each cycle of the controllers, in a thread of its own, until `end`.

    clock: returns the time in s. next_setpoint: the set-point (J,) rad for the cycle at a time, s, and its period, s;
    None: nothing is to be sent. Without known cycles set-points are sent at `rate` Hz. After an exception it stops and
    calls `failed`.
    """

    SLEEP = 0.005  # s at most slept at once: time may be simulated

    def __init__(
        self,
        rate: float,
        cycles: ControllerCycles,
        clock: Callable[[], float],
        next_setpoint: Callable[[float, float], np.ndarray | None],
        send: Callable[[np.ndarray], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._schedule, self._clock = SetpointSchedule(cycles, rate), clock
        self._next_setpoint, self._send, self._failed = next_setpoint, send, failed
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="set-points", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Send nothing more."""
        self._ending.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                now = self._clock()
                slot = self._schedule.next(now)
                while now < slot.send and not self._ending.is_set():
                    time.sleep(min(slot.send - now, self.SLEEP))
                    now = self._clock()
                if now > slot.cycle - MISSES * slot.period:  # held up: this cycle is over, or nearly
                    continue
                setpoint = self._next_setpoint(slot.cycle, slot.period)
                if setpoint is not None:
                    self._send(setpoint)
        except Exception as error:
            self._failed(error)
