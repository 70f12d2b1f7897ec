"""What a planner has to work with: latents that can be used, a gate that lets its plans through, searches that end."""

from __future__ import annotations

import math
import time

import numpy as np
from jepa_msgs.msg import GateStatus, LatentState

GATE_SILENT = 1.0  # s without gate_status after which what it said last counts no more


class PlannerHealth:
    """Times are steady, in s. failure: why the last search came to nothing, empty where it did not."""

    def __init__(self) -> None:
        self.gate: GateStatus | None = None
        self.foreign = self.bad_latents = 0
        self.restart()

    def restart(self) -> None:
        """Nothing was heard yet, and nothing is missed yet."""
        self.problem = self.failure = ""  # of the newest latent; of the last search
        self.search_began: float | None = None
        self._gate_at = -math.inf
        self._moved_at = self._latent_at = self._usable_since = time.monotonic()

    # -- latents -------------------------------------------------------------------------------------------------------

    def usable(self, message: LatentState, model_id: str, shape: tuple[int, ...], timeout: float) -> bool:
        """Whether a latent can be planned from; `problem` says why not, and it is counted. timeout: see missing."""
        now, interrupted = time.monotonic(), bool(self.problem)
        self.problem = ""
        if message.model_id != model_id:
            self.foreign += 1
            self.problem = f"latent: expected model '{model_id}', found '{message.model_id}'"
        elif len(message.data) != math.prod(shape):
            self.problem = f"latent: expected {math.prod(shape)} values, found {len(message.data)}"
        elif not np.isfinite(message.data).all():
            self.problem = "latent: expected finite values, found NaN or Inf"
        else:
            if interrupted or now - self._latent_at > timeout:
                self._usable_since = now
            self._latent_at = now
        self.bad_latents += bool(self.problem)
        return not self.problem

    def settling(self, resume_after: float) -> bool:
        """Whether latents were missing or unusable less than resume_after s ago."""
        return time.monotonic() - self._usable_since < resume_after

    def missing(self, latent_timeout: float, deadline: float) -> str:
        """Why no plans are made, in one sentence that stays the same meanwhile; empty where they should be."""
        now, began = time.monotonic(), self.search_began
        if now - self._latent_at > latent_timeout:
            return self.problem or f"no latent has come for {latent_timeout:g} s"
        if began is not None and now - began > deadline:
            return f"a search takes longer than the deadline of {deadline:g} s"
        return ""

    # -- the gate ------------------------------------------------------------------------------------------------------

    def gate_says(self, message: GateStatus) -> None:
        """Take note of gate_status."""
        self.gate, self._gate_at = message, time.monotonic()

    @property
    def gate_heard(self) -> bool:
        return time.monotonic() - self._gate_at < GATE_SILENT

    def held_for(self, wanted: bool) -> float:
        """s for which motion was wanted and the gate let none through; to be called now and then."""
        now = time.monotonic()
        if not wanted or (self.gate_heard and self.gate.state == GateStatus.TRACKING):
            self._moved_at = now
        return now - self._moved_at

    @property
    def gate_text(self) -> str:
        return self.gate.text if self.gate_heard else "arm_gate says nothing (gate_status)"


def aged(age: float) -> str:
    """A latent's age in s, in words; negative where it is stamped ahead of the clock."""
    return f"the newest latent is {age:.2f} s old" if age > 0 else f"the newest latent is stamped {-age:.2f} s ahead"
