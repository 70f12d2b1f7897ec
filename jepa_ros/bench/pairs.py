"""Times of several sides taken in turns, so that a machine that drifts slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Times:
    """Of one side, in s, one entry a round: on the clock, and of this process on a processor (which is less than the
    clock's where others are in the way)."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], object]) -> None:
        """Do it once, and note how long it took."""
        wall, processor = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


@dataclass(frozen=True)
class Ratio:
    """Of pairs: the median of their quotients, and the least and the largest one."""

    median: float
    min: float
    max: float
    pairs: int


def alternate(
    sides: Mapping[str, Callable[[], object]], rounds: int, done: Callable[[int], None] = lambda count: None
) -> dict[str, Times]:
    """Each side once a round, every round beginning with another one. done: is told of each finished round."""
    times = {name: Times() for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].take(sides[name])
        done(number + 1)
    return times


def ratio(theirs: list[float], ours: list[float]) -> Ratio:
    """How many times longer theirs took, entry by entry; both of one length, at least 1."""
    quotients = np.array(theirs) / np.array(ours)
    return Ratio(float(np.median(quotients)), float(quotients.min()), float(quotients.max()), len(quotients))
