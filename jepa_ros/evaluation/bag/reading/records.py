"""What is kept of a bag once it has been read: numbers, latents, and counts of what was wrong."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jepa_ros.evaluation.bag.reading.latents import LatentStore


@dataclass
class Series:
    """Rows as they come, of which there may be millions: stamps ns, epochs, values (V,) each, one after the other."""

    stamps: array = field(default_factory=lambda: array("q"))
    epochs: array = field(default_factory=lambda: array("i"))
    values: array = field(default_factory=lambda: array("d"))

    def add(self, stamp: int, epoch: int, values: np.ndarray) -> None:
        """A row."""
        self.stamps.append(stamp)
        self.epochs.append(epoch)
        self.values.extend(values.tolist())


@dataclass
class View:
    """What was met of one camera. stamps, recorded: ns of every message. dropped: pictures by cause. without_stamp:
    headers that say 0. problem: what was wrong with the first broken picture."""

    stamps: list[int] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    frame_id: str = ""
    without_stamp: int = 0
    problem: str = ""


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


@dataclass
class Recorded:
    """All of a bag that is judged; n frames, those of the first camera.

    frame_stamps, frame_recorded: ns. from_training (n,): see BatchEncoder. episodes: (stamp ns, epoch) of each one's
    beginning. unreadable: messages that are none, by topic. refused: joint states and actions by what was wrong.
    turned: degrees by which actions were brought into the model's axes, see axes.py.
    apart: frames of the first camera for which another one had none. begin, end: ns of recording.
    """

    path: Path
    latents: LatentStore
    urdf: str | None = None
    frame_stamps: list[int] = field(default_factory=list)
    frame_recorded: list[int] = field(default_factory=list)
    frame_epochs: list[int] = field(default_factory=list)
    frozen: list[bool] = field(default_factory=list)
    from_training: list[float] = field(default_factory=list)
    states: Series = field(default_factory=Series)
    joint_recorded: array = field(default_factory=lambda: array("q"))
    actions: Series = field(default_factory=Series)
    episodes: list[tuple[int, int]] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    unreadable: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    turned: float = 0.0
    apart: int = 0
    not_finite: int = 0
    begin: int | None = None
    end: int = 0

    @property
    def seconds(self) -> float:
        """From the first message to the last."""
        return 0.0 if self.begin is None else (self.end - self.begin) * 1e-9
