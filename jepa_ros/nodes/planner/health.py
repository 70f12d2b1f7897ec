"""State of what the planner depends on: usable latents, a gate that lets plans through, searches that end in time."""

from __future__ import annotations

import math
import time

import numpy as np
from jepa_msgs.msg import GateStatus, LatentState

from jepa_ros.planning.codes import NO_CAUSE, Cause, PlannerCode

GATE_SILENT_AFTER = 1.0  # s without gate_status after which the gate's last state is unknown
_CLOSED = {GateStatus.INACTIVE: PlannerCode.GATE_INACTIVE, GateStatus.LATCHED: PlannerCode.GATE_LATCHED}
# Causes of a hold that end by an operator's hand.
_OPERATOR = (GateStatus.CONTROLLER_INACTIVE, GateStatus.CONTROLLER_SLOWED)


class PlannerHealth:
    """All times are on the steady clock, in s.

    latent_fault: what is wrong with the newest latent. search_fault: why the last search failed.
    """

    def __init__(self) -> None:
        self.gate: GateStatus | None = None
        self.foreign = self.bad_latents = 0
        self.restart()

    def restart(self) -> None:
        """Forget what was received, and restart every timeout."""
        self.latent_fault = self.search_fault = NO_CAUSE
        self.search_began: float | None = None
        self._gate_at = -math.inf
        self._moved_at = self._latent_at = self._usable_since = self._started = time.monotonic()

    # -- latents -------------------------------------------------------------------------------------------------------

    def check_latent(self, message: LatentState, model_id: str, shape: tuple[int, ...], timeout: float) -> bool:
        """Return whether a latent can be planned from; otherwise count it and set `latent_fault`.

        timeout: s between two latents that count as an interruption.
        """
        now, interrupted = time.monotonic(), bool(self.latent_fault)
        self.latent_fault, size = NO_CAUSE, math.prod(shape)
        if message.model_id != model_id:
            self.foreign += 1
            text = f"latent: expected model '{model_id}', found '{message.model_id}'"
            self.latent_fault = Cause(PlannerCode.LATENT_OF_OTHER_MODEL, text)
        elif len(message.data) != size:
            text = f"latent: expected {size} values, found {len(message.data)}"
            self.latent_fault = Cause(PlannerCode.LATENT_INVALID, text)
        elif not np.isfinite(message.data).all():
            self.latent_fault = Cause(PlannerCode.LATENT_INVALID, "latent: expected finite values, found NaN or Inf")
        else:
            if interrupted or now - self._latent_at > timeout:
                self._usable_since = now
            self._latent_at = now
        self.bad_latents += bool(self.latent_fault)
        return not self.latent_fault

    def is_recovering(self, resume_after: float) -> bool:
        """Return whether latents were missing or invalid less than `resume_after` s ago."""
        return time.monotonic() - self._usable_since < resume_after

    def find_fault(self, latent_timeout: float, deadline: float) -> Cause:
        """Return why no plans are made now: no latents, or a search that does not end. The text does not change."""
        now, began = time.monotonic(), self.search_began
        if now - self._latent_at > latent_timeout:
            return self.latent_fault or Cause(PlannerCode.NO_LATENT, f"no latent for {latent_timeout:g} s")
        if began is not None and now - began > deadline:
            return Cause(PlannerCode.SEARCH_TIMEOUT, f"a search takes longer than the deadline of {deadline:g} s")
        return NO_CAUSE

    # -- the gate ------------------------------------------------------------------------------------------------------

    def receive_gate_status(self, message: GateStatus) -> None:
        """Keep the newest gate_status."""
        self.gate, self._gate_at = message, time.monotonic()

    @property
    def gate_is_known(self) -> bool:
        """Whether gate_status was received within GATE_SILENT_AFTER."""
        return time.monotonic() - self._gate_at < GATE_SILENT_AFTER

    def find_gate_refusal(self) -> Cause:
        """Return why the gate would let no plan through until an operator acts: latched, inactive or silent, or
        controllers that are inactive, slowed or paused."""
        if self.gate_is_known:
            code = _CLOSED.get(self.gate.state)
            if self.gate.state == GateStatus.HOLDING and self.gate.code in _OPERATOR:
                code = PlannerCode.GATE_HOLDING
            return NO_CAUSE if code is None else Cause(code, f"the gate lets no motion through: {self.gate.text}")
        if time.monotonic() - self._started > GATE_SILENT_AFTER:
            return self.gate_cause
        return NO_CAUSE

    def held_for(self, wanted: bool) -> float:
        """Return the s for which motion was wanted and the gate let none through. To be called regularly."""
        now = time.monotonic()
        if not wanted or (self.gate_is_known and self.gate.state == GateStatus.TRACKING):
            self._moved_at = now
        return now - self._moved_at

    @property
    def gate_cause(self) -> Cause:
        """Why the gate does not follow a plan, as far as its status tells."""
        if not self.gate_is_known:
            return Cause(PlannerCode.GATE_SILENT, f"no gate_status for {GATE_SILENT_AFTER:g} s: is arm_gate running?")
        return Cause(_CLOSED.get(self.gate.state, PlannerCode.GATE_HOLDING), self.gate.text)


def describe_age(age: float) -> str:
    """Return a latent's age (s; negative where its stamp is ahead of the clock) as a sentence."""
    return f"the newest latent is {age:.2f} s old" if age > 0 else f"the newest latent is stamped {-age:.2f} s ahead"
