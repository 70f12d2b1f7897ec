"""The gate's clock, and `executed`: the motion of the reference in each control period."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from jepa_ros.robot.gate.types import ExecutedTick
from jepa_ros.robot.motion.path import Path

MAX_TICKS = 10  # recorded at once; after a longer sleep of the caller older ones are dropped
MIN_STEP_BACK = 1e-3  # s; a clock that steps back by more has been reset


class Clock:
    """The caller's clock, in s since an epoch that is a multiple of `period`; never steps back within one epoch.

    Small numbers keep float64 exact enough for jerks; a ROS time in s is exact to 0.2 µs only.
    """

    def __init__(self, period: float):
        self._period = period
        self.epoch: float = math.nan  # s, absolute
        self.time = 0.0

    def read(self, now: float) -> tuple[float, bool]:
        """Return the time in s of `now` (absolute), and whether the clock went back so that a new epoch began."""
        went_back = now - self.epoch < self.time - MIN_STEP_BACK
        if went_back or math.isnan(self.epoch):
            self.epoch = math.floor(now / self._period) * self._period
            self.time = now - self.epoch
        self.time = max(now - self.epoch, self.time)
        return self.time, went_back


class ControlTicks:
    """Collects completed control periods of `period` s; times in s on the gate's Clock.

    mapping: from the reference (J,) rad at start and end of a tick to its value (A,) in the action space.
    """

    def __init__(self, period: float, mapping: Callable[[np.ndarray, np.ndarray], np.ndarray] | None):
        self._period, self._mapping = period, mapping
        self._done: list[ExecutedTick] = []
        self._plans: deque[tuple[float, int]] = deque(maxlen=32)
        self.restart(0.0)

    def restart(self, t: float) -> None:
        """Restart at t, after a jump of the reference or the clock. Completed ticks stay until taken."""
        self._plans.clear()
        self._boundary, self._start = math.ceil(t / self._period - 1e-6), None

    def set_plan(self, plan_id: int, t: float) -> None:
        """Record that from t on the reference follows this plan (0: none)."""
        self._plans.append((t, plan_id))

    def collect(self, path: Path, t: float, epoch: float) -> None:
        """Record the ticks completed by t, the reference being `path`. epoch: s, absolute, of this clock's zero."""
        period = self._period
        if t - self._boundary * period > MAX_TICKS * period:
            self._boundary, self._start = math.floor(t / period), None
        while t >= self._boundary * period - 1e-6:
            at = self._boundary * period
            q = path.at(at)[0]
            if self._start is not None:
                start = at - period
                plan_id = next((p for since, p in reversed(self._plans) if since <= start + 1e-4), 0)
                values = self._mapping(self._start, q) if self._mapping else None
                self._done.append(ExecutedTick(epoch + start, self._start, q, values, plan_id))
            self._start = q
            self._boundary += 1

    def take(self) -> list[ExecutedTick]:
        """Return the ticks completed since the last call."""
        done, self._done = self._done, []
        return done
