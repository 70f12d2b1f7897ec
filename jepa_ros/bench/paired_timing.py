"""Several implementations timed in turns, so that a machine that becomes slower affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass
class SideTimes:
    """Times of one side in s, one entry a round: wall time, and processor time of this process (less than the wall time
    where other processes interfere)."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def measure(self, work: Callable[[], object]) -> None:
        """Call `work` once and add the time that it took."""
        wall, processor = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


@dataclass(frozen=True)
class TimeRatio:
    """Median, smallest and largest ratio of paired times."""

    median: float
    min: float
    max: float
    pairs: int


def time_in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, done: Callable[[int], None] = lambda count: None
) -> dict[str, SideTimes]:
    """Time each side once a round; every round starts with another side. done: called after each round."""
    times = {name: SideTimes() for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].measure(sides[name])
        done(number + 1)
    return times


def compare_times(theirs: list[float], ours: list[float]) -> TimeRatio:
    """Return how many times longer theirs took, pair by pair; both lists have the same length of at least 1."""
    quotients = np.array(theirs) / np.array(ours)
    return TimeRatio(float(np.median(quotients)), float(quotients.min()), float(quotients.max()), len(quotients))
