"""Which frames of several cameras show the same moment, told by their stamps as they come. Times in s, on one clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

LAG = 0.5
"""Cameras may come this much later than one another, in s. A frame this much older than its camera's last one is merely
out of order; an older one says that time began anew."""
KEPT = 64
"""Most frames of a camera that are kept, whatever their stamps."""


class CameraSynchronizer:
    """Makes sets of one frame a camera, of the moments at which the first camera took its frames.

    cameras: their names, at least one. tolerance: the frames of a set lie within so many s of the first camera's, and
    each is the nearest one: a set is complete when no nearer one is to be expected. Of one camera each frame is a set.

    incomplete: frames of the first camera that were dropped, as a camera had none for them. apart: of the last such
    drop, by the name of each such camera, how many s later its nearest frame was; a camera without any is not in it.
    Empty once a set is complete again.
    """

    def __init__(self, cameras: Sequence[str], tolerance: float):
        self._first, *self._others = cameras
        self._cameras = {name: _Camera() for name in cameras}
        self._tolerance = tolerance
        self._waiting: deque[tuple[float, Any]] = deque()  # frames of the first camera
        self.incomplete = 0
        self.apart: dict[str, float] = {}

    def clear(self) -> None:
        """Forget all frames: a new episode begins."""
        self._waiting.clear()
        self.apart = {}
        for camera in self._cameras.values():
            camera.frames.clear()

    def add(self, camera: str, stamp: float, item: Any) -> list[tuple[Any, ...]]:
        """A frame of one camera → the sets that it completes, oldest first: items in the order of the cameras.

        A frame that is not later than its camera's last one is left out, or begins a new episode: see LAG.
        """
        if not self._others:
            return [(item,)]
        own = self._cameras[camera]
        if stamp <= own.newest:
            if own.newest - stamp <= LAG:
                return []
            self.clear()
        own.add(stamp, item)
        if camera == self._first:
            self._waiting.append((stamp, item))
        return self._complete()

    def _complete(self) -> list[tuple[Any, ...]]:
        """Later frames of the first camera wait behind earlier ones: what those wait for, they wait for too."""
        sets, newest = [], self._cameras[self._first].newest
        while self._waiting:
            stamp, item = self._waiting[0]
            views = {name: self._cameras[name].nearest(stamp) for name in self._others}
            missing = [name for name, view in views.items() if not self._fits(view, stamp)]
            overdue = newest - stamp > LAG or len(self._waiting) > KEPT
            if any(self._cameras[name].newest > stamp for name in missing) or (missing and overdue):
                self.incomplete += 1
                self.apart = {name: views[name][0] - stamp for name in missing if views[name]}
            elif overdue or not (missing or any(self._cameras[n].may_come_nearer(stamp) for n in self._others)):
                sets.append((item, *(view[1] for view in views.values())))
                self.apart = {}
            else:
                break
            self._waiting.popleft()
        return sets

    def _fits(self, view: tuple[float, Any] | None, stamp: float) -> bool:
        return view is not None and abs(view[0] - stamp) <= self._tolerance


class _Camera:
    """Frames (stamp, item) of the last LAG s, ascending."""

    def __init__(self) -> None:
        self.frames: deque[tuple[float, Any]] = deque(maxlen=KEPT)

    def add(self, stamp: float, item: Any) -> None:
        self.frames.append((stamp, item))
        while stamp - self.frames[0][0] > LAG:
            self.frames.popleft()

    @property
    def newest(self) -> float:
        """The last stamp, or -inf."""
        return self.frames[-1][0] if self.frames else -math.inf

    def nearest(self, stamp: float) -> tuple[float, Any] | None:
        return min(self.frames, key=lambda frame: abs(frame[0] - stamp), default=None)

    def may_come_nearer(self, stamp: float) -> bool:
        """Whether the next frame may lie nearer to `stamp` than all that are there, as soon after the last one as the
        two of those that were closest together."""
        since = stamp - self.newest
        if since <= 0:
            return False
        apart = [after[0] - before[0] for before, after in pairwise(self.frames)]
        return len(apart) < 2 or since > 0.5 * min(apart)
