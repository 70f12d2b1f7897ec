"""Whether somebody allows the arm to move: an e-stop that is there, a dead-man switch that is held."""

from __future__ import annotations

import math

from jepa_ros.robot.gate_types import GateSettings


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
