"""From a segment to episodes on the grid of the control rate: matched by stamp, cut at gaps, still stretches thinned.

Of a segment without gaps exactly those frames, states and actions are taken that bags.episodes.read_episodes takes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from jepa_ros.bags.grid import interpolate, nearest
from jepa_ros.datasets.actions import ActionSource
from jepa_ros.datasets.segments import Segment, Track

SLOWEST = 1.2
"""Control periods between two pictures, from which a camera is too slow."""
STATE_GAP = 0.1
"""s without joint states that are bridged; or three times their own period, where that is longer."""
STILL_JOINTS, STILL_ACTION = 0.02, 0.02
"""rad/s, and share of the greatest action, under which the arm stands still."""
STILL_KEPT = 1.0
"""s of a still stretch that are kept by thinning, half at each end."""


@dataclass(frozen=True)
class Matched:
    """One episode of T ticks: pictures (T + 1, views) by their place in the views' tracks, at (T + 1,) s from the
    segment's start, states (T + 1, P), actions (T, A)."""

    pictures: np.ndarray
    at: np.ndarray
    states: np.ndarray
    actions: np.ndarray

    def part(self, low: int, high: int) -> Matched:
        """Frames low to high, without the last."""
        return Matched(self.pictures[low:high], self.at[low:high], self.states[low:high], self.actions[low : high - 1])


def match(
    segment: Segment,
    source: ActionSource | None,
    period: float,
    joints: int,
    dropped: Counter,
    *,
    thin: bool = False,
    least: int = 1,
) -> list[Matched]:
    """The episodes of a segment that are `least` ticks long or longer. joints: number J of the arm's. thin: leave out
    the middle of stretches where the arm stands still. What is left out is added to dropped."""
    first = segment.views[0]
    if source is None or len(segment.states.times) < 2 or min(len(v.times) for v in segment.views) < 2:
        dropped["pictures of stretches without actions, joint states or two pictures of each view"] += len(first.times)
        return []
    if (every := float(np.median(np.diff(first.times)))) > SLOWEST * period:
        dropped[f"pictures of a camera slower than the rate ({1 / every:.1f} Hz)"] += len(first.times)
        return []
    others = [nearest(view.times, first.times) for view in segment.views[1:]]
    usable = _usable(segment, others, dropped)
    states = _states(segment.states, joints)
    episodes = []
    for rows in _runs(first.times, usable, source, period, dropped):
        at = first.times[rows]
        made = Matched(
            np.stack([rows, *(index[rows] for index, _ in others)], axis=1),
            at,
            interpolate(at, segment.states.times, states),
            source.between(at),
        )
        for part in _moving(made, period, joints, dropped) if thin else [made]:
            if len(part.actions) < least:
                dropped["frames of stretches that are too short"] += len(part.at)
            else:
                episodes.append(part)
    return episodes


def _usable(segment: Segment, others: list[tuple[np.ndarray, np.ndarray]], dropped: Counter) -> np.ndarray:
    """Which pictures of the first view (n,) have those of the other views and joint states near."""
    times = segment.views[0].times
    together = np.logical_and.reduce([np.ones(len(times), bool), *(near for _, near in others)])
    known = segment.states.times
    longest = max(STATE_GAP, 3 * float(np.median(np.diff(known))))
    after = np.searchsorted(known, times)
    low, high = known[np.maximum(after - 1, 0)], known[np.minimum(after, len(known) - 1)]
    inside = (after > 0) & (after < len(known))
    near = np.where(inside, high - low, np.abs(times - low)) <= longest
    near |= np.minimum(np.abs(times - low), np.abs(high - times)) < 1e-6
    if count := int((~together).sum()):
        dropped["pictures without one of each other view"] += count
    if count := int((together & ~near).sum()):
        dropped["pictures without joint states"] += count
    return together & near


def _states(track: Track, joints: int) -> np.ndarray:
    """(n, P) with velocities from the differences of positions where none are measured."""
    states = track.array()
    velocity = states[:, joints : 2 * joints]
    if np.isnan(velocity).any():
        differences = np.gradient(states[:, :joints], track.times, axis=0)
        states[:, joints : 2 * joints] = np.where(np.isnan(velocity), differences, velocity)
    return states


def _runs(
    times: np.ndarray, usable: np.ndarray, source: ActionSource, period: float, dropped: Counter
) -> list[np.ndarray]:
    """Rows of the pictures of each stretch that has one for every tick, and actions all along."""
    runs, margin = [], 0.75 * float(np.median(np.diff(times)))
    end = min(source.end, times[-1])
    begin = _next(usable, 0)
    while begin is not None:
        # No picture is the nearest of more than two ticks in a row: a stamp from another time makes no endless grid.
        ticks = min(max(int((end + 1e-6 - times[begin]) / period) + 1, 0), 2 * (len(times) - begin) + 2)
        grid = times[begin] + period * np.arange(ticks)
        rows, good = nearest(times, grid)
        good &= usable[rows]
        missing = ticks if good.all() else int(np.argmin(good))
        rows = rows[:missing]
        if not len(rows):
            dropped["pictures after the last action"] += len(times) - begin
            break
        hole = _hole(source.holes, times[rows])
        if hole is not None:
            tick, resumes = hole
            after = begin + 1 if tick == 0 else rows[tick] + 1
            begin_next = _next(usable, max(int(after), int(np.searchsorted(times, resumes))))
            passed = (begin_next if begin_next is not None else len(times)) - rows[tick] - 1
            dropped["pictures without actions"] += int(passed) + (tick == 0)
            rows = rows[: tick + 1]
        elif missing < ticks:
            dropped["gaps between pictures"] += bool(usable[rows[-1] :].any())
            later = int(np.searchsorted(times, grid[missing] - margin))
            begin_next = _next(usable, max(int(rows[-1]) + 1, later))
        else:
            begin_next = None
        if len(rows) > 1:
            runs.append(rows)
        elif hole is None:
            dropped["frames of stretches that are too short"] += 1
        begin = begin_next
    return runs


def _next(usable: np.ndarray, low: int) -> int | None:
    found = np.flatnonzero(usable[low:])
    return int(found[0]) + low if len(found) else None


def _hole(holes: np.ndarray, at: np.ndarray) -> tuple[int, float] | None:
    """The first tick between times at (n,) that reaches into a hole, and the hole's end; None where none does."""
    if not len(holes):
        return None
    # A tick may reach a little into a hole: stamps jitter.
    touched = (holes[:, 0] + 1e-6 < at[1:, None]) & (holes[:, 1] - 1e-6 > at[:-1, None]) if len(at) > 1 else None
    if touched is None:
        touched = (holes[:, 0] < at[:, None]) & (holes[:, 1] > at[:, None])
    ticks, which = np.nonzero(touched)
    return (int(ticks[0]), float(holes[which[0], 1])) if len(ticks) else None


def _moving(made: Matched, period: float, joints: int, dropped: Counter) -> list[Matched]:
    """The parts of an episode that are left when the middle of long still stretches is taken out."""
    speed = np.abs(np.diff(made.states[:, :joints], axis=0)).max(1, initial=0) / np.diff(made.at)
    still = (speed < STILL_JOINTS) & (np.abs(made.actions).max(1, initial=0) < STILL_ACTION)
    kept = max(1, round(STILL_KEPT / period / 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(int), [0]])))
    parts, begin = [], 0
    for low, high in edges.reshape(-1, 2):
        # At the ends of an episode there is nothing on one side that the stretch leads over from.
        left, right = (low + kept if low > 0 else 0), (high - kept if high < len(still) else len(still))
        if right - left < 2:
            continue
        if left > begin:
            parts.append(made.part(begin, left + 1))
        dropped["frames of still stretches"] += int(right - left) - 1 + (left == 0) + (right == len(still))
        begin = right
    if begin < len(still):
        parts.append(made.part(begin, len(still) + 1))
    return parts
