"""What the gate knows of arm and camera: whether its inputs are healthy, and whether the arm follows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jepa_ros.robot.gate.monitors import Heartbeat, JointMonitor
from jepa_ros.robot.gate.types import GateSettings
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path


class Inputs:
    """Joint states and latents, judged by `settings`. Times in s on the gate's clock."""

    def __init__(self, limits: JointLimits, settings: GateSettings):
        s = self._settings = settings
        self.latent = Heartbeat("latent", s.latent_timeout, s.latent_stamp_timeout, s.skew)
        beat = Heartbeat("joint_states", s.joint_timeout, s.joint_stamp_timeout, s.skew)
        self.joints = JointMonitor(
            limits.names, limits.velocity, beat, jump_factor=s.jump_factor, jump_margin=s.jump_margin
        )
        self.consent = Consent(s)
        self.clear(0.0)

    def clear(self, t: float) -> None:
        """Forget everything heard."""
        self.latent.clear()
        self.joints.clear()
        self.consent.clear()
        self.cause = self.trouble = ""  # why inputs, or joint states alone, count as unhealthy; empty: they do not
        self.healthy_since = math.inf
        self.following = math.nan  # rad, largest distance of a joint from the reference of its stamp
        self._moving_since, self._reference = t, None

    def joint_states(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float] | None,
        stamp: float,
        t: float,
        path: Path | None,
        reference: np.ndarray,
    ) -> None:
        """Take note of measured positions; path and reference (3, J): what the arm is told to do."""
        changed = self.joints.changed
        if not self.joints.heard(names, positions, velocities, stamp, t) or path is None:
            return
        if self.joints.changed != changed:
            self._reference = reference
        seen = min(max(self.joints.stamp, path.start), t)
        self.following = float(np.abs(path.at(seen)[0] - self.joints.positions).max())

    def look(self, t: float) -> str:
        """Judge the inputs now: the cause where they are not healthy, otherwise empty."""
        self.trouble = self.joints.take_trouble() or self.joints.heartbeat.fault(t)
        self.cause = self.trouble or self.latent.fault(t) or self.consent.missing(t)
        if self.cause:
            self.healthy_since = math.inf
        elif self.healthy_since == math.inf:
            self.healthy_since = t
        return self.cause

    def motion_begins(self, t: float, reference: np.ndarray) -> None:
        """From now on measured positions must change as the reference (3, J) does."""
        self._moving_since, self._reference = t, reference

    def frozen(self, t: float, reference: np.ndarray) -> str:
        """Whether joint states stay the same while the reference (3, J) moves, in words; empty where they do not."""
        s = self._settings
        if t - max(self.joints.changed, self._moving_since) <= s.frozen_timeout:
            return ""
        if np.abs(reference[0] - self._reference[0]).max() <= s.frozen_motion:
            return ""
        self.healthy_since = math.inf
        return f"joint_states frozen for {s.frozen_timeout:.2f} s in motion"

    def release_refused(self, t: float) -> str:
        """Why the arm cannot be taken over where it is measured to be; empty where it can."""
        if fault := self.joints.take_trouble() or self.joints.heartbeat.fault(t):
            return fault
        if self.joints.positions is None:
            return "no joint_states yet"
        if self.joints.speed > self._settings.rest_speed:
            return f"the arm moves at {self.joints.speed:.2f} rad/s"
        return ""


class Consent:
    """What the settings require of e-stop and dead-man switch; times in s on the gate's clock.

    That the e-stop was pressed is the gate's business; here it counts only that there is one.
    """

    def __init__(self, settings: GateSettings):
        self._settings = settings
        self._present = False  # what does not depend on the clock outlives its reset
        self.clear()

    def clear(self) -> None:
        """Forget when things were heard: a new clock."""
        self._e_stop = self._deadman = -math.inf
        self._held = False

    def e_stop_heard(self, t: float) -> None:
        """A message of the e-stop, whatever it said."""
        self._present, self._e_stop = True, t

    def e_stop_gone(self) -> None:
        """Nobody publishes it."""
        self._present = False

    def deadman_heard(self, held: bool, t: float) -> None:
        """A message of the dead-man switch."""
        self._held, self._deadman = held, t

    def missing(self, t: float) -> str:
        """What is required and not there, in words; empty where nothing is."""
        s = self._settings
        if s.require_e_stop:
            if not self._present:
                return "no e_stop is there, and one is required"
            if t - self._e_stop > s.e_stop_timeout:
                return f"no e_stop for {s.e_stop_timeout:.2f} s"
        if s.require_deadman:
            if t - self._deadman > s.deadman_timeout:
                return f"no dead-man switch for {s.deadman_timeout:.2f} s"
            if not self._held:
                return "the dead-man switch is not held"
        return ""
