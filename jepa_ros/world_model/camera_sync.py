"""Synchronizing several cameras: sets of frames of the same moment, by stamp. Times in s, on one clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

MAX_LAG_S = 0.5
"""Largest delay of one camera behind another. A frame older than its camera's last one by no more than this is out of
order and dropped; an older one means that the clock jumped back."""
MAX_FRAMES = 64
"""Frames kept of each camera."""


class CameraSynchronizer:
    """Makes sets of one frame from each camera, one set for each frame of the first camera.

    cameras: their names, at least one; with one camera each frame is a set. tolerance: largest distance in s of the
    frames of a set to the first camera's. Each is the nearest one: a set is complete when no nearer one can arrive.

    incomplete: number of frames of the first camera that were dropped because another camera had no frame for them.
    apart: at the last drop, for each such camera how many s its nearest frame was later (cameras without frames are
    left out); empty once a set is complete again.
    """

    def __init__(self, cameras: Sequence[str], tolerance: float):
        self._first, *self._others = cameras
        self._cameras = {name: _Camera() for name in cameras}
        self._tolerance = tolerance
        self._waiting: deque[tuple[float, Any]] = deque()  # frames of the first camera
        self.incomplete = 0
        self.apart: dict[str, float] = {}

    def clear(self) -> None:
        """Drop all frames: a new episode begins."""
        self._waiting.clear()
        self.apart = {}
        for camera in self._cameras.values():
            camera.frames.clear()

    def add(self, camera: str, stamp: float, item: Any) -> list[tuple[Any, ...]]:
        """Add a frame of one camera; return the sets that it completes, oldest first, items in the order of cameras.

        A frame that is not later than its camera's last one is dropped, or begins a new episode: see MAX_LAG_S.
        """
        if not self._others:
            return [(item,)]
        own = self._cameras[camera]
        if stamp <= own.newest:
            if own.newest - stamp <= MAX_LAG_S:
                return []
            self.clear()
        own.add(stamp, item)
        if camera == self._first:
            self._waiting.append((stamp, item))
        return self._take_complete_sets()

    def _take_complete_sets(self) -> list[tuple[Any, ...]]:
        """Return the sets that are complete. Frames of the first camera are handled in order: later ones wait."""
        sets, newest = [], self._cameras[self._first].newest
        while self._waiting:
            stamp, item = self._waiting[0]
            views = {name: self._cameras[name].nearest(stamp) for name in self._others}
            missing = [n for n, view in views.items() if view is None or abs(view[0] - stamp) > self._tolerance]
            overdue = newest - stamp > MAX_LAG_S or len(self._waiting) > MAX_FRAMES
            if any(self._cameras[name].newest > stamp for name in missing) or (missing and overdue):
                self.incomplete += 1
                self.apart = {name: view[0] - stamp for name, view in views.items() if view and name in missing}
            elif overdue or not (missing or any(self._cameras[n].may_come_nearer(stamp) for n in self._others)):
                sets.append((item, *(view[1] for view in views.values() if view)))
                self.apart = {}
            else:
                break
            self._waiting.popleft()
        return sets


class _Camera:
    """Frames (stamp, item) of the last MAX_LAG_S, ascending."""

    def __init__(self) -> None:
        self.frames: deque[tuple[float, Any]] = deque(maxlen=MAX_FRAMES)

    def add(self, stamp: float, item: Any) -> None:
        self.frames.append((stamp, item))
        while stamp - self.frames[0][0] > MAX_LAG_S:
            self.frames.popleft()

    @property
    def newest(self) -> float:
        """The newest stamp, or -inf."""
        return self.frames[-1][0] if self.frames else -math.inf

    def nearest(self, stamp: float) -> tuple[float, Any] | None:
        return min(self.frames, key=lambda frame: abs(frame[0] - stamp), default=None)

    def may_come_nearer(self, stamp: float) -> bool:
        """Return whether the next frame may be nearer to `stamp` than all so far, given the shortest period seen."""
        since = stamp - self.newest
        if since <= 0:
            return False
        apart = [after[0] - before[0] for before, after in pairwise(self.frames)]
        return len(apart) < 2 or since > 0.5 * min(apart)
