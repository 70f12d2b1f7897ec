"""Period, phase and clock of the controllers, from the stamps of their joint states.

joint_state_broadcaster publishes once in each cycle of the controller manager, stamped with the time of that cycle. So
the gate can send exactly one set-point for each cycle, made for its time, although nothing synchronises the two.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

SAMPLES = 60
ENOUGH = 15  # samples before the cycles count as known
LEARN_EVERY = 5  # samples
REGULAR = 0.2  # of the period, by which a stamp may be off the cycle
SHARE = 0.8  # of the samples that must be regular
SLOWEST = 0.05  # s; slower joint states say nothing of the controllers' cycles
EARLY = 0.5  # of the period, by which a set-point is sent ahead of its cycle
SMOOTHING, SHIFT = 0.02, 1e-3  # per cycle: of the period, by which cycles are shifted towards what is learned
LATE = 0.3  # of the period: a set-point sent later than that before a cycle may miss it


class Slot(NamedTuple):
    """When to send a set-point, the time of the cycle that takes it (s on the gate's clock), the cycles' period (s)."""

    send: float
    cycle: float
    period: float


class ControllerCycles:
    """Learns the controllers' cycles. period: s, where it is known and joint states come at another rate."""

    def __init__(self, period: float | None = None):
        self._given = period
        self.clear()

    def clear(self) -> None:
        """Forget what was learned: the clock or the controllers have changed."""
        self._stamps: deque[float] = deque(maxlen=SAMPLES)
        self._offsets: deque[float] = deque(maxlen=SAMPLES)
        self.period: float | None = self._given
        self._phase = 0.0  # s on the controllers' clock, time of some cycle; 0: not known
        self._new = 0

    def observe(self, stamp: float, received: float) -> None:
        """Record a joint state: its stamp, on the controllers' clock, and when it was received, on the gate's."""
        if self._stamps and not 0.0 < stamp - self._stamps[-1] < 1.0:
            if stamp == self._stamps[-1]:
                return
            self.clear()
        self._stamps.append(stamp)
        self._offsets.append(received - stamp)
        self._new += 1
        if self._new >= LEARN_EVERY and len(self._stamps) >= ENOUGH:
            self._new = 0
            self._learn()

    @property
    def offset(self) -> float | None:
        """s that the gate's clock is ahead of the controllers', the shortest delay of a message included; None: not
        known yet."""
        return min(self._offsets) if len(self._offsets) >= ENOUGH else None

    def next_slot(self, now: float) -> Slot | None:
        """Return the first slot at or after `now`, s on the gate's clock; None while the cycles are not known.

        Between EARLY and LATE before a cycle the slot is still that of this cycle, to be used at once.
        """
        period, offset = self.period, self.offset
        if period is None or offset is None or self._phase == 0.0:
            return None
        first = self._phase + offset
        cycle = first + math.ceil((now - first) / period + LATE) * period
        return Slot(max(cycle - EARLY * period, now), cycle, period)

    def _learn(self) -> None:
        stamps = np.array(self._stamps)
        origin = stamps[0]
        steps = np.diff(stamps)
        period = self._given or float(np.median(steps))
        if not 0.0 < period <= SLOWEST:
            self.period = self._given
            return
        if self._given is None:
            count = round((stamps[-1] - origin) / period)
            period = float(stamps[-1] - origin) / count if count else period
        angles = 2.0 * math.pi * (stamps - origin) / period
        phase = math.atan2(float(np.sin(angles).mean()), float(np.cos(angles).mean())) / (2.0 * math.pi) * period
        off = np.abs((stamps - origin - phase + 0.5 * period) % period - 0.5 * period)
        regular = float((off < REGULAR * period).mean()) >= SHARE
        self.period = period if regular else self._given
        self._phase = origin + phase if regular else 0.0


class SetpointSchedule:
    """When the next set-point is due: once in each of the controllers' cycles, or at `rate` Hz while these are not
    known. Times in s on the gate's clock.

    The cycles' times advance evenly and follow what is learned slowly: at 500 Hz a shift by 20 us would already be an
    acceleration of several rad/s².
    """

    def __init__(self, cycles: ControllerCycles, rate: float):
        self._cycles, self._unknown = cycles, 1.0 / rate
        self._last = -math.inf  # s, time of the last cycle
        self._period = math.nan  # s, smoothed

    def next(self, now: float) -> Slot:
        """Return the next slot at or after `now`; each cycle has only one."""
        if not now - 1.0 < self._last < now + 1.0:  # the first, or the clock has jumped
            self._last, self._period = -math.inf, math.nan
        slot = self._cycles.next_slot(now)
        if slot is not None and slot.cycle < self._last + 0.5 * slot.period:
            slot = self._cycles.next_slot(self._last + 0.5 * slot.period)
        if slot is None:
            send = max(self._last, now)
            slot, self._period = Slot(send, send + self._unknown, self._unknown), math.nan
        else:
            slot = slot._replace(cycle=self._smooth(slot.cycle, slot.period))
        self._last = slot.cycle
        return slot

    def _smooth(self, cycle: float, period: float) -> float:
        """Return the time of a cycle that was learned to be at `cycle`."""
        if not abs(period - self._period) < 0.1 * period:
            self._period = period
            return cycle
        self._period += SMOOTHING * (period - self._period)
        count = round((cycle - self._last) / self._period)
        expected = self._last + count * self._period
        off = cycle - expected
        if abs(off) > 0.2 * period:
            return cycle
        most = SHIFT * count * period
        return expected + min(max(off, -most), most)
