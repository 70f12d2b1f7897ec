"""Whether what the gate is told about the world can be believed: ages, and the sanity of joint states.

All times are s on one ROS clock; `now` is the receiver's. An age is judged on receive time, stamp and future skew
together: stamps alone would let a wrong clock move an arm for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


class Heartbeat:
    """The age of one input.

    timeout: s since it was last received. stamp_timeout: s since the newest stamp. skew: s that a stamp may lie in the
    future. An infinite timeout turns the check off.
    """

    def __init__(self, name: str, timeout: float, stamp_timeout: float, skew: float):
        self.name, self.timeout, self.stamp_timeout, self.skew = name, timeout, stamp_timeout, skew
        self.clear()

    def clear(self) -> None:
        """Forget everything heard."""
        self.received = self.stamp = -math.inf
        self.ahead = 0.0

    def heard(self, stamp: float, now: float) -> bool:
        """Take note of a message; False where its stamp lies in the future beyond the skew or is not a number."""
        if not math.isfinite(stamp):
            return False
        self.ahead = stamp - now
        if self.ahead > self.skew:
            return False
        self.received, self.stamp = now, max(self.stamp, stamp)
        return True

    def age(self, now: float) -> float:
        """s, the greater of the ages by receive time and by stamp; NaN before the first message."""
        return max(now - self.received, now - self.stamp) if self.received > -math.inf else math.nan

    def fault(self, now: float) -> str:
        """Why the input counts as stale, in words; empty where it does not."""
        if math.isinf(self.timeout):
            return ""
        if self.received == -math.inf:
            if self.ahead > self.skew:
                return f"{self.name} is stamped {self.ahead:.2f} s in the future"
            return f"no {self.name} yet"
        if now - self.received > self.timeout:
            ahead = f" (the last is stamped {self.ahead:.2f} s in the future)" if self.ahead > self.skew else ""
            return f"no {self.name} for {self.timeout:.2f} s{ahead}"
        if now - self.stamp > self.stamp_timeout:
            return f"{self.name} is stamped {now - self.stamp:.2f} s ago, more than {self.stamp_timeout:.2f} s"
        return ""


class JointMonitor:
    """Measured positions of the joints `names` (J), mapped by name, and whether they can be believed.

    velocity: (J,) rad/s limits; between two samples a joint moves at most `jump_factor` times that far plus
    `jump_margin` rad, otherwise the sample counts as a jump.
    """

    def __init__(
        self,
        names: Sequence[str],
        velocity: np.ndarray,
        heartbeat: Heartbeat,
        *,
        jump_factor: float,
        jump_margin: float,
    ):
        self.names, self.heartbeat = tuple(names), heartbeat
        self._wanted = frozenset(names)
        self._reach, self._margin = np.asarray(velocity) * jump_factor, jump_margin
        self._layout: tuple[str, ...] | None = None
        self._index = np.zeros(0, dtype=int)
        self.clear()

    def clear(self) -> None:
        """Forget everything heard."""
        self.heartbeat.clear()
        self.positions: np.ndarray | None = None  # (J,) rad, of the newest believable sample
        self.speed = 0.0  # rad/s, of the fastest joint
        self.changed = -math.inf  # s, receive time of the newest sample that differs from the one before
        self.stamp = -math.inf
        self._baseline: np.ndarray | None = None
        self._trouble = ""

    def heard(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float] | None,
        stamp: float,
        now: float,
    ) -> bool:
        """Take note of one message; True where it gave a believable sample.

        A message with none of the joints (another publisher's) is passed over. Anything else that cannot be used is
        trouble until the next call of `take_trouble`.
        """
        trouble = self._read(tuple(names), positions, velocities, stamp, now)
        if trouble:
            self._trouble = trouble
        return trouble == ""

    def take_trouble(self) -> str:
        """What was wrong with samples since the last call, in words; empty where nothing was."""
        trouble, self._trouble = self._trouble, ""
        return trouble

    def _read(self, names, positions, velocities, stamp: float, now: float) -> str | None:
        if names != self._layout:
            fault = self._map(names)
            if fault != "":
                return fault
        if len(positions) != len(names):
            return f"joint_states: expected {len(names)} positions, found {len(positions)}"
        q = np.asarray(positions, dtype=float)[self._index]
        if not np.isfinite(q).all():
            return f"joint_states: position of {self.names[int((~np.isfinite(q)).argmax())]} is not finite"
        if not math.isfinite(stamp) or stamp - now > self.heartbeat.skew:
            self.heartbeat.heard(stamp, now)
            return f"joint_states are stamped {stamp - now:.2f} s in the future"
        if stamp < self.stamp:
            return None  # overtaken on the way; the newer one is known already
        before, elapsed = self._baseline, stamp - self.stamp
        self._baseline, self.stamp = q, stamp
        moved = np.abs(q - before) if before is not None else None
        if moved is not None and (moved > self._reach * max(elapsed, 0.0) + self._margin).any():
            i = int((moved - self._reach * max(elapsed, 0.0)).argmax())
            return f"joint_states: {self.names[i]} jumped {moved[i]:.2f} rad in {elapsed:.3f} s"
        if velocities is not None and len(velocities) == len(names):
            qd = np.asarray(velocities, dtype=float)[self._index]
            if not np.isfinite(qd).all():
                return f"joint_states: velocity of {self.names[int((~np.isfinite(qd)).argmax())]} is not finite"
            self.speed = float(np.abs(qd).max())
        elif moved is not None and elapsed > 0:
            self.speed = float(moved.max()) / elapsed
        if moved is None or moved.any():
            self.changed = now
        self.heartbeat.heard(stamp, now)
        self.positions = q
        return ""

    def _map(self, names: tuple[str, ...]) -> str | None:
        """Find the joints in a new layout: empty text where all are there, None where none is, otherwise the fault."""
        found = self._wanted.intersection(names)
        if not found:
            return None
        if len(found) < len(self.names):
            return f"joint_states: {next(n for n in self.names if n not in found)} is missing"
        if any(names.count(n) > 1 for n in self.names):
            return f"joint_states: {next(n for n in self.names if names.count(n) > 1)} is named twice"
        self._layout, self._index = names, np.array([names.index(n) for n in self.names])
        return ""
