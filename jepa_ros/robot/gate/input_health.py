"""Health of the gate's inputs: age and plausibility of joint states and latents, e-stop and dead-man switch.

All times are s on the gate's clock (see `ticks.Clock`). An age is checked by receive time, stamp and future skew
together: with stamps alone, a wrong clock could keep an arm moving for ever.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jepa_ros.robot.gate.controller_watch import ControllerWatch
from jepa_ros.robot.gate.types import NO_CAUSE, Cause, GateCode, GateSettings
from jepa_ros.robot.motion.angles import difference, nearest_turn
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path

SPEED_SPAN = 0.1  # s over which a speed is taken from positions, so that an encoder's steps are not taken for motion


class Heartbeat:
    """Age of one input.

    codes: for "none received yet", "stale", "stamped in the future". timeout: s since the last message; inf turns the
    check off. stamp_timeout: s since the newest stamp. skew: s by which a stamp may lie in the future.
    """

    def __init__(
        self, name: str, codes: tuple[GateCode, GateCode, GateCode], timeout: float, stamp_timeout: float, skew: float
    ):
        self.name, self.timeout, self.stamp_timeout, self.skew = name, timeout, stamp_timeout, skew
        self._missing, self._stale, self._in_future = codes
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self.received = self.stamp = -math.inf
        self.ahead = 0.0

    def receive(self, stamp: float, now: float) -> bool:
        """Record a message; False where its stamp is not finite or lies in the future by more than the skew."""
        if not math.isfinite(stamp):
            return False
        self.ahead = stamp - now
        if self.ahead > self.skew:
            return False
        self.received, self.stamp = now, max(self.stamp, stamp)
        return True

    def age(self, now: float) -> float:
        """Return the age in s, the greater of those by receive time and by stamp; NaN before the first message."""
        return max(now - self.received, now - self.stamp) if self.received > -math.inf else math.nan

    def check(self, now: float) -> Cause:
        """Return why the input is stale, or NO_CAUSE."""
        if math.isinf(self.timeout):
            return NO_CAUSE
        in_future = self.ahead > self.skew
        if self.received == -math.inf:
            if in_future:
                return Cause(self._in_future, f"{self.name} is stamped {self.ahead:.2f} s in the future")
            return Cause(self._missing, f"no {self.name} yet")
        if now - self.received > self.timeout:
            text = f"no {self.name} for {self.timeout:.2f} s"
            if in_future:
                return Cause(self._in_future, f"{text} (the last is stamped {self.ahead:.2f} s in the future)")
            return Cause(self._stale, text)
        if now - self.stamp > self.stamp_timeout:
            age = f"{now - self.stamp:.2f} s ago, more than {self.stamp_timeout:.2f} s"
            return Cause(self._stale, f"{self.name} is stamped {age}")
        return NO_CAUSE


class JointMessage(NamedTuple):
    """Names, positions (rad), velocities (rad/s; NaN, empty or None: not measured) and stamp (s) of joint_states."""

    names: tuple[str, ...]
    positions: Sequence[float]
    velocities: Sequence[float] | None
    stamp: float


class JointMonitor:
    """Measured positions of the joints `limits.names` (J), mapped by name and checked for plausibility.

    Between two samples a joint moves at most `jump_factor` times as far as its velocity limit allows, plus
    `jump_margin` rad; otherwise the sample counts as a jump. Continuous joints are compared modulo a turn, and their
    positions are continued over the end of a turn. Velocities that are not measured are taken from positions.
    """

    def __init__(self, limits: JointLimits, settings: GateSettings):
        s = settings
        codes = (GateCode.NO_JOINT_STATES, GateCode.JOINT_STATES_STALE, GateCode.JOINT_STATES_IN_FUTURE)
        self.heartbeat = Heartbeat("joint_states", codes, s.joint_timeout, s.joint_stamp_timeout, s.skew)
        self.names = tuple(limits.names)
        self._wanted = frozenset(limits.names)
        self._continuous = limits.continuous
        self._max_speed, self._margin = limits.velocity * s.jump_factor, s.jump_margin
        self._layout: tuple[str, ...] | None = None
        self._index = np.zeros(0, dtype=int)
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self.heartbeat.clear()
        self.positions: np.ndarray | None = None  # (J,) rad, of the newest plausible sample
        self.speed = 0.0  # rad/s, of the fastest joint
        self.moving_speed = 0.0  # rad/s, the same by positions alone: some hardware reports a velocity of 0 in motion
        self.changed = -math.inf  # s, receive time of the newest sample that differs from the one before
        self.stamp = -math.inf
        self._previous: np.ndarray | None = None
        self._recent: deque[tuple[float, np.ndarray]] = deque()  # stamps and positions of the last SPEED_SPAN
        self._fault = NO_CAUSE

    def receive(self, message: JointMessage, now: float) -> bool:
        """Read one message; True where it gave a plausible sample.

        A message with none of the joints (of another publisher) or overtaken by a newer one is ignored. Anything else
        that cannot be used is a fault until the next call of `take_fault`.
        """
        names, positions, velocities, stamp = message
        if names != self._layout and not self._map(names):
            return False
        invalid = GateCode.JOINT_STATES_INVALID
        if len(positions) != len(names):
            return self._reject(invalid, f"expected {len(names)} positions, found {len(positions)}")
        q = np.asarray(positions, dtype=float)[self._index]
        if not np.isfinite(q).all():
            return self._reject(invalid, f"position of {self.names[int((~np.isfinite(q)).argmax())]} is not finite")
        if not math.isfinite(stamp) or stamp - now > self.heartbeat.skew:
            self.heartbeat.receive(stamp, now)
            return self._reject(GateCode.JOINT_STATES_IN_FUTURE, f"stamped {stamp - now:.2f} s in the future")
        if stamp < self.stamp:
            return False
        previous, elapsed = self._previous, stamp - self.stamp
        if previous is not None:
            q = nearest_turn(q, previous, self._continuous)
        self._previous, self.stamp = q, stamp
        moved = np.abs(q - previous) if previous is not None else None
        if moved is not None:
            beyond = moved - self._max_speed * max(elapsed, 0.0)
            if (beyond > self._margin).any():
                i = int(beyond.argmax())
                text = f"{self.names[i]} jumped {moved[i]:.2f} rad in {elapsed:.3f} s"
                self._recent.clear()
                return self._reject(GateCode.JOINT_STATES_JUMPED, text)
        velocity = self._differentiate(q)
        self.moving_speed = float(np.abs(velocity).max())
        if velocities is not None and len(velocities) == len(names):
            qd = np.asarray(velocities, dtype=float)[self._index]
            if np.isinf(qd).any():
                return self._reject(invalid, f"velocity of {self.names[int(np.isinf(qd).argmax())]} is infinite")
            velocity = np.where(np.isnan(qd), velocity, qd)
        self.speed = float(np.abs(velocity).max())
        if moved is None or moved.any():
            self.changed = now
        self.heartbeat.receive(stamp, now)
        self.positions = q
        return True

    def _differentiate(self, q: np.ndarray) -> np.ndarray:
        """Return velocities (J,) rad/s from the positions of the last SPEED_SPAN s; 0 at the first sample."""
        recent = self._recent
        while len(recent) > 1 and recent[1][0] <= self.stamp - SPEED_SPAN:
            recent.popleft()
        recent.append((self.stamp, q))
        since, before = recent[0]
        elapsed = self.stamp - since
        return (q - before) / max(elapsed, 1e-3) if elapsed > 0.0 else np.zeros_like(q)

    def take_fault(self) -> Cause:
        """Return what was wrong with samples since the last call, or NO_CAUSE."""
        fault, self._fault = self._fault, NO_CAUSE
        return fault

    def _reject(self, code: GateCode, text: str) -> bool:
        self._fault = Cause(code, f"joint_states: {text}")
        return False

    def _map(self, names: tuple[str, ...]) -> bool:
        """Find the joints in a message with other names than the last; False where not all are there once."""
        found = self._wanted.intersection(names)
        if not found:
            return False
        if len(found) < len(self.names):
            missing = next(n for n in self.names if n not in found)
            return self._reject(GateCode.JOINT_STATES_INVALID, f"{missing} is missing")
        if twice := [n for n in self.names if names.count(n) > 1]:
            return self._reject(GateCode.JOINT_STATES_INVALID, f"{twice[0]} is named twice")
        self._layout, self._index = names, np.array([names.index(n) for n in self.names])
        return True


class MotionEnable:
    """The e-stop and the dead-man switch, where the settings require them."""

    def __init__(self, settings: GateSettings):
        self._settings = settings
        # These do not depend on the clock and stay after `clear`.
        self._e_stop_present = False
        self.e_stop_pressed = False
        self.clear()

    def clear(self) -> None:
        """Forget receive times: the clock has changed."""
        self._e_stop_received = self._deadman_received = -math.inf
        self._deadman_held = False

    def receive_e_stop(self, pressed: bool, t: float) -> None:
        """Record an e-stop message."""
        self._e_stop_present, self._e_stop_received, self.e_stop_pressed = True, t, pressed

    def lose_e_stop(self) -> None:
        """Record that nothing publishes the e-stop any more."""
        self._e_stop_present = False

    def receive_deadman(self, held: bool, t: float) -> None:
        """Record a message of the dead-man switch."""
        self._deadman_held, self._deadman_received = held, t

    def check(self, t: float) -> Cause:
        """Return which required switch is missing, stale or released, or NO_CAUSE.

        A pressed e-stop is not reported here: it latches the gate (see Gate.update_e_stop).
        """
        s = self._settings
        if s.require_e_stop:
            if not self._e_stop_present:
                return Cause(GateCode.E_STOP_MISSING, "an e-stop is required and nothing publishes e_stop")
            if t - self._e_stop_received > s.e_stop_timeout:
                return Cause(GateCode.E_STOP_STALE, f"no e_stop for {s.e_stop_timeout:.2f} s")
        if s.require_deadman:
            if t - self._deadman_received > s.deadman_timeout:
                return Cause(GateCode.DEADMAN_STALE, f"no dead-man switch for {s.deadman_timeout:.2f} s")
            if not self._deadman_held:
                return Cause(GateCode.DEADMAN_RELEASED, "the dead-man switch is not held")
        return NO_CAUSE


class Inputs:
    """All inputs of the gate, checked against `settings`."""

    def __init__(self, limits: JointLimits, settings: GateSettings):
        s = self._settings = settings
        codes = (GateCode.NO_LATENT, GateCode.LATENT_STALE, GateCode.LATENT_IN_FUTURE)
        self.latent = Heartbeat("latent", codes, s.latent_timeout, s.latent_stamp_timeout, s.skew)
        self.joints = JointMonitor(limits, s)
        self.controllers = ControllerWatch(limits, s)
        self._continuous = limits.continuous
        self.enable = MotionEnable(s)
        self.clear(0.0)

    def clear(self, t: float) -> None:
        """Forget all messages."""
        self.latent.clear()
        self.joints.clear()
        self.controllers.clear()
        self.enable.clear()
        # of any input, of joint states alone, of the controllers alone
        self.fault = self.joint_fault = self.controller_fault = NO_CAUSE
        self.healthy_since = math.inf
        # (J,) rad, reference minus measured position at the sample's stamp, and its largest value
        self.offset, self.following_error = np.zeros(len(self.joints.names)), math.nan
        self._moving_since = t
        self._reference = np.zeros((3, len(self.joints.names)))  # when a sample last changed or motion began

    def update_joint_states(self, message: JointMessage, t: float, path: Path | None, reference: np.ndarray) -> None:
        """Record measured positions; path and reference (3, J): the motion that the arm is commanded."""
        changed = self.joints.changed
        if not self.joints.receive(message, t) or self.joints.positions is None or path is None:
            return
        if self.joints.changed != changed:
            self._reference = reference
        measured_at = min(max(self.joints.stamp, path.start), t)
        self.offset = difference(path.at(measured_at)[0], self.joints.positions, self._continuous)
        self.following_error = float(np.abs(self.offset).max())

    def update(self, t: float) -> Cause:
        """Check all inputs at t; return the fault, or NO_CAUSE."""
        self.joint_fault = self.joints.take_fault() or self.joints.heartbeat.check(t)
        self.controller_fault = self.controllers.check(t)
        self.fault = self.joint_fault or self.controller_fault or self.latent.check(t) or self.enable.check(t)
        if self.fault:
            self.healthy_since = math.inf
        elif self.healthy_since == math.inf:
            self.healthy_since = t
        return self.fault

    def start_motion(self, t: float, reference: np.ndarray) -> None:
        """Begin a motion: measured positions must change as the reference (3, J) does."""
        self._moving_since, self._reference = t, reference

    def check_frozen(self, t: float, reference: np.ndarray) -> Cause:
        """Return a cause where joint states do not change while the reference (3, J) moves."""
        s = self._settings
        if t - max(self.joints.changed, self._moving_since) <= s.frozen_timeout:
            return NO_CAUSE
        if np.abs(reference[0] - self._reference[0]).max() <= s.frozen_motion:
            return NO_CAUSE
        self.healthy_since = math.inf
        return Cause(GateCode.JOINT_STATES_FROZEN, f"joint_states frozen for {s.frozen_timeout:.2f} s in motion")

    def check_release(self, t: float) -> Cause:
        """Return why the measured position cannot become the reference, or NO_CAUSE."""
        if fault := self.joints.take_fault() or self.joints.heartbeat.check(t):
            return fault
        if self.joints.speed > self._settings.rest_speed:
            return Cause(GateCode.ARM_MOVING, f"the arm moves at {self.joints.speed:.2f} rad/s")
        return NO_CAUSE
