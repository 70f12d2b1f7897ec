"""Where the time of a recording begins anew: stamps of all topics on one clock that may jump back."""

from __future__ import annotations

BACK = 500_000_000
"""ns that a stamp may lie behind the newest one; further back, time began anew. The live camera node's `max_age`."""
STRAGGLER = 1_000_000_000
"""ns of recording after a jump within which messages from before it may still come."""


class Clock:
    """Tells for each message, as it was recorded, in which epoch its stamp lies. jumps: (stamp before, stamp after) in
    ns of each jump back. stragglers: messages that came late from before a jump, which belong nowhere."""

    def __init__(self) -> None:
        self.epoch = 0
        self.jumps: list[tuple[int, int]] = []
        self.stragglers = 0
        self._newest: int | None = None
        self._jumped_at = 0

    def of(self, stamp: int, recorded: int) -> int | None:
        """The epoch of a stamp in ns; None of a straggler."""
        if self._newest is None:
            self._newest = stamp
        if self.jumps and recorded - self._jumped_at < STRAGGLER and stamp >= self.jumps[-1][0] - BACK > self._newest:
            self.stragglers += 1
            return None
        if stamp < self._newest - BACK:
            self.jumps.append((self._newest, stamp))
            self.epoch, self._jumped_at, self._newest = self.epoch + 1, recorded, stamp
        self._newest = max(self._newest, stamp)
        return self.epoch
