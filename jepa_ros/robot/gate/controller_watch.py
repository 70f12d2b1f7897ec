"""Controller supervision: activity, speed factor and held position, from the controllers' reports.

A controller that is switched off, paused or commanded by another program does not follow the gate's windows; one more
window would then be a step. Reports come from ~/controller_state of joint_trajectory_controller and from the controller
manager's activity. A gate that receives neither works as before, with joint states alone.

All times are s on the gate's clock (see `ticks.Clock`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jepa_ros.robot.gate.types import NO_CAUSE, Cause, GateCode, GateSettings
from jepa_ros.robot.motion.angles import difference
from jepa_ros.robot.motion.limits import JointLimits

FULL_SPEED = 0.01  # a speed factor that differs from 1 by no more counts as 1
REGULAR = 3  # reports after which silence means something
MISSED = 5.0  # usual intervals without a report that count as silence, if that is longer than controller_timeout
REST_FOR = 0.1  # s for which a reported set-point must not have moved
SAME_SETPOINT = 1e-3  # rad, by which the same set-point may differ in a report and in the gate
SAME = 1e-4  # rad, a set-point that moves by less between two reports stands still
FRESH_FOR = 0.5  # s
REMEMBERED = 20  # delays of reports
DOUBT_FOR = 1.0  # s for which reports are not believed after one that cannot be true
ELSEWHERE, ELSEWHERE_TIME = 0.05, 0.1  # rad and s by which a set-point may differ from the windows sent


class ControllerReport(NamedTuple):
    """State of one controller: its joints, set-point (rad, in their order), speed factor and stamp (s)."""

    controller: str
    joints: tuple[str, ...]
    positions: Sequence[float]
    speed: float
    stamp: float


@dataclass
class _Heard:
    """The last report of one controller. set-point: (K,) rad of the joints `columns` of the gate."""

    columns: list[int]
    setpoint: np.ndarray
    speed: float
    stamp: float
    received: float
    moved: float  # when the set-point last moved
    delays: deque[float]  # s from the last stamps to their receipt: the shortest one tells how the clocks differ
    compared: float = -math.inf  # stamp of the last report that was compared with the windows
    count: int = 1
    interval: float = 0.0  # s, usual


class ControllerWatch:
    """Checks the controllers' reports. limits: of the gate's joints (J)."""

    def __init__(self, limits: JointLimits, settings: GateSettings):
        self._limits, self._settings = limits, settings
        self._inactive: dict[str, str] | None = None  # does not depend on the clock: stays after `clear`
        self.clear()

    def clear(self) -> None:
        """Forget all reports: the clock has changed."""
        self._heard: dict[str, _Heard] = {}
        self._doubtful_until = -math.inf

    def receive(self, report: ControllerReport, t: float) -> None:
        """Record a report. One that cannot be true makes all of them doubtful for a while."""
        names, q = self._limits.names, np.asarray(report.positions, dtype=float)
        if not set(report.joints) <= set(names) or q.shape != (len(report.joints),):
            return  # of another controller
        before = self._heard.get(report.controller)
        ahead = report.stamp - t
        if not np.isfinite(q).all() or not math.isfinite(report.speed) or not -FRESH_FOR < ahead < self._settings.skew:
            self._doubtful_until = t + DOUBT_FOR
            return
        columns = [names.index(joint) for joint in report.joints]
        if before is None or before.columns != columns:
            self._heard[report.controller] = _Heard(
                columns, q, report.speed, report.stamp, t, t, deque([t - report.stamp], maxlen=REMEMBERED)
            )
            return
        elapsed = report.stamp - before.stamp
        moved = np.abs(difference(q, before.setpoint, self._limits.continuous[columns]))
        possible = self._limits.velocity[columns] * self._settings.jump_factor * max(elapsed, 0.0)
        if elapsed < 0.0 or (moved > possible + self._settings.jump_margin).any():
            # A controller that starts again steps as well, but does not go on doing so.
            self._doubtful_until = t + DOUBT_FOR
        gap = t - before.received
        before.interval = gap if before.count == 1 else before.interval + 0.2 * (min(gap, 1.0) - before.interval)
        before.moved = t if moved.max() > SAME else before.moved
        before.setpoint, before.speed, before.stamp, before.received = q, report.speed, max(report.stamp, 0.0), t
        before.delays.append(t - report.stamp)
        before.count += 1

    def update_activity(self, inactive: Mapping[str, str] | None) -> None:
        """Record the controllers that are not active, by name, with the state that they are in; None: not known."""
        for name in inactive or ():
            self._heard.pop(name, None)  # what it reported before means nothing when it is active again
        self._inactive = None if inactive is None else dict(inactive)

    def check(self, t: float) -> Cause:
        """Return why the controllers do not follow the windows that they are sent, or NO_CAUSE."""
        for name, state in (self._inactive or {}).items():
            return Cause(GateCode.CONTROLLER_INACTIVE, f"controller {name} is not active ({state})")
        for name, heard in self._heard.items():
            silence = max(self._settings.controller_timeout, MISSED * heard.interval)
            if heard.count >= REGULAR and t - heard.received > silence:
                text = f"controller {name} has not reported its state for {silence:.2f} s"
                return Cause(GateCode.CONTROLLER_SILENT, text)
            if abs(heard.speed - 1.0) > FULL_SPEED:
                text = f"controller {name} is paused"
                if heard.speed > FULL_SPEED:
                    text = f"controller {name} runs at {100 * heard.speed:.0f} % of its speed; set 100 %"
                return Cause(GateCode.CONTROLLER_SLOWED, text)
        return NO_CAUSE

    def find_deviation(self, references: Sequence[tuple[float, np.ndarray]], t: float) -> Cause:
        """Return a cause where a newly reported set-point is not on the windows sent, or NO_CAUSE.

        references: times (s) and positions (J,) rad of the last windows, in order.
        """
        new = [(name, h) for name, h in self._heard.items() if h.stamp > h.compared]
        if not new or t < self._doubtful_until or references[-1][0] - references[0][0] < ELSEWHERE_TIME:
            return NO_CAUSE
        for name, heard in new:
            heard.compared = heard.stamp
            at = heard.stamp + min(heard.delays)
            near = [q for when, q in references if abs(when - at) <= ELSEWHERE_TIME]
            if not near:
                continue
            columns = heard.columns
            off = difference(heard.setpoint, np.array(near)[:, columns], self._limits.continuous[columns])
            least = float(np.abs(off).max(axis=1).min())
            if least > ELSEWHERE:
                text = f"controller {name} is {least:.2f} rad from what it was sent: does another program command it?"
                return Cause(GateCode.CONTROLLER_ELSEWHERE, text)
        return NO_CAUSE

    def find_setpoint(self, t: float, measured: np.ndarray, since: float = -math.inf) -> np.ndarray | None:
        """Return the position (J,) rad that the controllers hold; None where it is not known for every joint.

        measured: (J,) rad. A set-point further than sag_max from it is not believed. since: s, of the oldest stamp.
        """
        off = self._find_offset(t, measured, since)
        return measured + off if off is not None and np.abs(off).max() <= self._settings.sag_max else None

    def check_sag(self, t: float, measured: np.ndarray, since: float) -> Cause:
        """Return a cause where the controllers hold a set-point further than sag_max from the arm, or NO_CAUSE."""
        off, most = self._find_offset(t, measured, since), self._settings.sag_max
        if off is None or np.abs(off).max() <= most:
            return NO_CAUSE
        text = f"the controllers hold a set-point {np.abs(off).max():.2f} rad from the arm, sag_max is {most:g}"
        return Cause(GateCode.ARM_DISPLACED, text)

    def _find_offset(self, t: float, measured: np.ndarray, since: float) -> np.ndarray | None:
        """Return the set-point that is held less the measured position, (J,) rad; None where it is not known."""
        if t < self._doubtful_until:
            return None
        q = np.full(len(self._limits.names), math.nan)
        for heard in self._heard.values():
            if t - heard.received < FRESH_FOR and heard.stamp > since:
                q[heard.columns] = heard.setpoint
        return None if np.isnan(q).any() else difference(q, measured, self._limits.continuous)

    @property
    def reports(self) -> bool:
        """True where a controller has reported its state."""
        return bool(self._heard)

    def confirms(self, held: np.ndarray, t: float) -> bool:
        """True where the controllers hold `held` (J,) rad, by their reports or because they have been active."""
        if self._inactive is not None and not self._heard:
            return not self._inactive
        fresh = [h for h in self._heard.values() if t - h.received < FRESH_FOR]
        if t < self._doubtful_until or sum(len(h.columns) for h in fresh) < len(held):
            return False
        return all(np.abs(h.setpoint - held[h.columns]).max() < SAME_SETPOINT for h in fresh)

    def is_moving(self, t: float) -> bool:
        """True where a controller reports a set-point that has moved within REST_FOR."""
        return any(t - h.received < FRESH_FOR and t - h.moved < REST_FOR for h in self._heard.values())
