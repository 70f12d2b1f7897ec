"""Checks of camera frames: fresh, in order, and not frozen. Without ROS; stamps in ns."""

from __future__ import annotations

import numpy as np

from jepa_ros.errors import InputError


class FrameDropped(InputError):
    """A well-formed frame that must not be used. `cause`: one word for counters."""

    CAUSES = ("clock", "stale", "future", "duplicate", "order", "frozen")

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class FrameChecks:
    """Checks the frames of one camera as they arrive.

    max_age, max_skew: s that a stamp may be behind and ahead of the clock. frozen_after: s of equal pixels with new
    stamps after which the image counts as frozen; 0: never. `episodes` counts jumps back in time, after which the
    source has restarted and its frames pass.
    """

    def __init__(self, *, max_age: float, max_skew: float, frozen_after: float) -> None:
        self.configure(max_age=max_age, max_skew=max_skew, frozen_after=frozen_after)
        self.episodes = 0
        self.restart()

    def configure(self, *, max_age: float, max_skew: float, frozen_after: float) -> None:
        """Set the limits; the history of frames is kept."""
        self._max_age, self._max_skew, self._frozen_after = (int(s * 1e9) for s in (max_age, max_skew, frozen_after))

    def restart(self) -> None:
        """Clear the history of frames."""
        self._last: int | None = None
        self._pixels: np.ndarray | None = None
        self._same_since = 0

    def check_stamp(self, stamp: int, now: int) -> None:
        """Check a stamp at time `now` (both ns on the same clock). Raises FrameDropped."""
        if now <= 0:
            raise FrameDropped("clock", "frame: the clock has not started (is /clock published?)")
        age = now - stamp
        if age > self._max_age:
            raise FrameDropped("stale", f"frame stamp: expected at most {_s(self._max_age)} s old, found {_s(age)} s")
        if -age > self._max_skew:
            raise FrameDropped(
                "future", f"frame stamp: expected at most {_s(self._max_skew)} s ahead, found {_s(-age)} s"
            )
        back = 0 if self._last is None else self._last - stamp
        if self._last is not None and back == 0:
            raise FrameDropped("duplicate", "frame stamp: expected a new one, found the last frame's again")
        if back > self._max_age:
            self.episodes += 1
            self.restart()
        elif back > 0:
            # Up to max_age this ends by itself; beyond it the clock went back, or the stamp would be stale.
            raise FrameDropped(
                "order", f"frame stamp: expected later than the last frame's, found {_s(back)} s earlier"
            )

    def accept(self, stamp: int, data) -> None:
        """Record a frame whose stamp passed. Raises FrameDropped where its pixels are the same for too long."""
        self._last = stamp
        if self._frozen_after == 0:
            return
        pixels = np.frombuffer(data, np.uint8)
        if self._pixels is None or not np.array_equal(pixels, self._pixels):
            self._pixels, self._same_since = pixels, stamp
        elif stamp - self._same_since >= self._frozen_after:
            raise FrameDropped(
                "frozen", f"frame: expected new pixels, found the same for {_s(stamp - self._same_since)} s"
            )


def _s(nanoseconds: int) -> str:
    return f"{nanoseconds * 1e-9:.3g}"
