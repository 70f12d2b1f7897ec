"""The gate's clock, and control ticks: what the reference really did on the fixed grid that actions live on."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from jepa_ros.robot.gate.types import ExecutedTick
from jepa_ros.robot.motion.path import Path

MOST = 10  # ticks noted at once; after a longer sleep of the caller the older ones are dropped


BACKWARD = 1e-3  # s; a clock that steps back by more has been reset


class Clock:
    """The caller's clock, in s since an epoch that is a multiple of `period`; never goes back within one epoch.

    Small numbers keep float64 exact enough for jerks; a ROS time in s is good to 0.2 µs only.
    """

    def __init__(self, period: float):
        self._period = period
        self.epoch: float = math.nan  # s, absolute
        self.time = 0.0

    def read(self, now: float) -> tuple[float, bool]:
        """The time in s for `now` (absolute), and whether the clock went back so that a new epoch was begun."""
        went_back = now - self.epoch < self.time - BACKWARD
        if went_back or math.isnan(self.epoch):
            self.epoch = math.floor(now / self._period) * self._period
            self.time = now - self.epoch
        self.time = max(now - self.epoch, self.time)
        return self.time, went_back


class ControlTicks:
    """Collects completed ticks of `period` s; times in s on the gate's Clock."""

    def __init__(self, period: float, mapping: Callable[[np.ndarray, np.ndarray], np.ndarray] | None):
        self._period, self._mapping = period, mapping
        self._done: list[ExecutedTick] = []
        self._plans: deque[tuple[float, int]] = deque(maxlen=32)
        self.restart(0.0)

    def restart(self, t: float) -> None:
        """Begin anew at t: the reference has jumped, or so has the clock. Completed ticks stay until taken."""
        self._plans.clear()
        self._boundary, self._start = math.ceil(t / self._period - 1e-6), None

    def follows(self, plan_id: int, t: float) -> None:
        """From t on the reference follows this plan (0: none)."""
        self._plans.append((t, plan_id))

    def collect(self, path: Path, t: float, epoch: float) -> None:
        """Note the ticks completed by t, the reference being `path`; epoch: s, absolute, of this clock's zero."""
        period = self._period
        if t - self._boundary * period > MOST * period:
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
        """The ticks completed since the last call."""
        done, self._done = self._done, []
        return done
