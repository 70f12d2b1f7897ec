"""Episodes made from the signals of a bag: segments, matched by stamp on the grid of the control rate.

Segments are cut at episode markers and where the clock jumps, so that all stamps in one are comparable. Their episodes
are cut at gaps, and idle spans are thinned.

Actions between frames come from executed actions, commands or joint states; all are mean velocities over a tick,
divided by a scale, so that they mean the same at any rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jepa_ros.datasets.mapping import TOOL, BagMapping
from jepa_ros.datasets.signals import Marker, Series, Signals
from jepa_ros.datasets.store import SPLITS
from jepa_ros.robot.motion.angles import remove_wraps
from jepa_ros.robot.motion.kinematics import Kinematics

CLOCK_SET_BACK_S = 1.0  # a stamp this long before the previous one means that the clock was set back
STRAY_STAMP_S = 3600.0  # a single stamp this far ahead of its neighbours is invalid
MATCH_PERIODS = 0.75  # largest distance from a tick to its sample, in median periods: cameras jitter
SEEN_WITHIN_S = 0.15  # an object counts as seen in a frame if a message is at most this far away
SLOWEST_PERIODS = 1.2  # control periods between two images above which the camera is too slow
STATE_GAP_S = 0.1
"""Gap between joint states that is interpolated over; or three of their own periods where that is longer."""
IDLE_JOINT_SPEED, IDLE_ACTION = 0.02, 0.02  # rad/s, and share of the largest action, below which the arm is idle
IDLE_KEPT_S = 1.0  # part of an idle span that thinning keeps, half at each end


@dataclass(frozen=True)
class Track:
    """Samples of one topic in a segment, ordered by stamp. times: (n,) s from the segment's start. stamps: (n,) ns.
    values: a list of n."""

    times: np.ndarray
    stamps: np.ndarray
    values: list

    def array(self) -> np.ndarray:
        """Return the values as (n, D) float."""
        return np.array(self.values, float)


@dataclass(frozen=True)
class Segment:
    """The samples between two markers without a jump of the clock.

    number: of the episode in the bag. split: empty where no marker states it. start: ns that `Track.times` count from.
    """

    number: int
    split: str
    task: str
    start: int
    views: list[Track]
    states: Track
    actions: Track
    objects: dict[str, Track] = field(default_factory=dict)


def split_into_segments(signals: Signals, dropped: Counter) -> Iterator[Segment]:
    """Yield the segments of a bag in the order of recording; messages that belong to none are counted in `dropped`."""
    markers = sorted(signals.markers, key=lambda m: m.order)
    if not markers:
        first = signals.views[0]
        markers = [Marker(-1, first.stamps[0], 0, "", "")]
    elif before := sum(order < markers[0].order for order in signals.views[0].order):
        dropped["images before the first episode"] += before
    ends = [*(m.order for m in markers[1:]), np.iinfo(np.int64).max]
    every = {("view", k): series for k, series in enumerate(signals.views)}
    every |= {"states": signals.states, "actions": signals.actions}
    every |= {("object", name): series for name, series in signals.objects.items()}
    orders = {key: np.array(series.order, np.int64) for key, series in every.items()}
    number = -1
    for marker, end in zip(markers, ends, strict=True):
        parts = {
            key: _split_at_clock_jumps(_between(series, orders[key], marker.order, end), dropped)
            for key, series in every.items()
        }
        for epoch in range(max(map(len, parts.values()))):
            number += 1
            # Before the clock was set back, times count from the marker; afterwards, from the first sample.
            first_stamps = [part[epoch][0][0] for part in parts.values() if len(part) > epoch and part[epoch]]
            start = marker.stamp if epoch == 0 else min(first_stamps, default=0)
            tracks = {key: _track(part, epoch, start, dropped) for key, part in parts.items()}
            yield Segment(
                marker.number if len(signals.markers) and epoch == 0 else number,
                marker.split if marker.split in SPLITS else "",
                marker.task,
                start,
                [tracks["view", k] for k in range(len(signals.views))],
                tracks["states"],
                tracks["actions"],
                {name: tracks["object", name] for name in signals.objects},
            )


def _between(series: Series, order: np.ndarray, low: int, high: int) -> list[tuple[int, object]]:
    """Return (stamp, value) of the messages recorded between the messages number low and high."""
    begin, end = np.searchsorted(order, low, "right"), np.searchsorted(order, high, "left")
    return list(zip(series.stamps[begin:end], series.values[begin:end], strict=True))


def _split_at_clock_jumps(samples: list[tuple[int, object]], dropped: Counter) -> list[list[tuple[int, object]]]:
    """Split samples where time jumps back and stays there; a single stray stamp is dropped."""
    epochs: list[list[tuple[int, object]]] = [[]]
    last = None
    for index, (stamp, value) in enumerate(samples):
        later = [s for s, _ in samples[index + 1 : index + 3]]
        back = last is not None and stamp < last - CLOCK_SET_BACK_S * 1e9
        ahead = not back and (last is None or stamp > last + STRAY_STAMP_S * 1e9)
        stays = bool(later) and (
            later[0] <= last - CLOCK_SET_BACK_S * 1e9 if back else max(later) >= stamp - STRAY_STAMP_S * 1e9
        )
        if (back and not stays) or (ahead and later and not stays):
            dropped["messages with a stray stamp"] += 1
            continue
        if back:
            epochs.append([])
        epochs[-1].append((stamp, value))
        last = stamp if last is None or back else max(last, stamp)
    return epochs


def _track(epochs: list, epoch: int, start: int, dropped: Counter) -> Track:
    samples = sorted(epochs[epoch], key=lambda s: s[0]) if epoch < len(epochs) else []
    distinct = [s for i, s in enumerate(samples) if i == 0 or s[0] != samples[i - 1][0]]
    if len(distinct) < len(samples):
        dropped["messages with a repeated stamp"] += len(samples) - len(distinct)
    stamps = np.array([stamp for stamp, _ in distinct], np.int64)
    return Track((stamps - start) * 1e-9, stamps, [value for _, value in distinct])


def match_nearest(times: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each wanted time (n,) the index of the nearest of `times` (at least two), and whether it is within
    MATCH_PERIODS."""
    order = np.argsort(times, kind="stable")
    ascending = times[order]
    after = np.clip(np.searchsorted(ascending, wanted), 1, len(times) - 1)
    nearer = np.where(wanted - ascending[after - 1] <= ascending[after] - wanted, after - 1, after)
    index = order[nearer]
    return index, np.abs(times[index] - wanted) <= MATCH_PERIODS * float(np.median(np.diff(times)))


def interpolate(at: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return (n, D) values at times `at` (n,): linear between those at `times` (m,), constant beyond them."""
    return np.stack([np.interp(at, times, column) for column in values.T], axis=1)


Executed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""MotionSpace.executed: from joint positions at a tick's start and end to the action."""


@dataclass(frozen=True)
class ActionSource:
    """Actions of one segment.

    between: returns the actions (n - 1, A) between times (n,) s. end: time in s after which no action is known. gaps:
    (n, 2) s, start and end of the spans without a known action.
    """

    between: Callable[[np.ndarray], np.ndarray]
    end: float = np.inf
    gaps: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))


def _executed_actions(track: Track, recorded: float, period: float) -> ActionSource:
    """Return executed displacements per tick of `recorded` s, converted to ticks of `period` s."""
    recorded = period if abs(recorded - period) < 1e-6 else recorded  # the message holds a float32
    times, values = track.times, track.array()
    edges = np.append(times, times[-1] + recorded)
    travelled = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    last = np.flatnonzero(np.diff(times) > 1.5 * recorded)  # actions before a gap
    gaps = [(-np.inf, times[0] - 0.5 * recorded), *((times[k] + recorded, times[k + 1]) for k in last)]

    def between(at: np.ndarray) -> np.ndarray:
        actions = np.diff(interpolate(at, edges, travelled), axis=0)
        return actions if recorded == period else actions * (recorded / period)

    return ActionSource(between, edges[-1], np.array(gaps))


def _held_velocity(track: Track, hold: float, scale: float) -> ActionSource:
    """Return velocity commands, each held until the next one, at most for `hold` s."""
    times, values = track.times, track.array()
    ends = np.minimum(np.append(times[1:], np.inf), times + hold)
    # The velocity is constant between edges: the command's from its time on, zero from its end on.
    edges = np.stack([times, ends], axis=1).ravel()
    moved = values * (ends - times)[:, None] / scale
    travelled = np.cumsum(np.stack([np.zeros_like(moved), moved], axis=1).reshape(-1, values.shape[1]), axis=0)
    return ActionSource(lambda at: np.diff(interpolate(at, edges, travelled), axis=0) / np.diff(at)[:, None])


def _joint_motion(positions, scale: float, space: Executed | None, begin: float, end: float) -> ActionSource:
    """Return the motion of joints. positions: maps times (n,) to (n, J) rad. space: makes actions of it."""

    def between(at: np.ndarray) -> np.ndarray:
        q = positions(at)
        if space is not None:
            return np.array([space(a, b) for a, b in zip(q[:-1], q[1:], strict=True)]).reshape(len(q) - 1, -1)
        return np.diff(q, axis=0) / np.diff(at)[:, None] / scale

    return ActionSource(between, end, np.array([(-np.inf, begin)]))


class TrajectoryReference:
    """The reference that joint_trajectory_controller follows.

    Each trajectory starts at its stamp, from the position of the one before it. Positions are linear between its
    points, and constant after the last.
    """

    def __init__(self, times: np.ndarray, trajectories: list[tuple[np.ndarray, np.ndarray]]):
        self._starts, self._parts = times, []
        at = trajectories[0][1][0]
        for k, (offsets, positions) in enumerate(trajectories):
            if offsets[0] > 0:
                offsets, positions = np.append(0.0, offsets), np.vstack([at, positions])
            self._parts.append((offsets, positions))
            if k + 1 < len(times):
                at = interpolate(np.array([times[k + 1] - times[k]]), offsets, positions)[0]

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Return the positions (n, J) rad at times (n,) s."""
        which = np.maximum(np.searchsorted(self._starts, at, "right") - 1, 0)
        parts = zip(at - self._starts[which], which, strict=True)
        return np.array([interpolate(np.array([t]), *self._parts[k])[0] for t, k in parts])


def action_source(
    segment: Segment, signals: Signals, mapping: BagMapping, period: float, executed: Executed | None
) -> ActionSource | None:
    """Return the actions of a segment; None where it has none. executed: computes those of derived_space."""
    a, arm = mapping.actions, len(mapping.joint_states.joints)
    space = executed if mapping.derived_space else None
    if a.source == "states":
        states = segment.states
        if len(states.times) < 2:
            return None
        q = remove_wraps(states.array()[:, :arm], states.times)
        begin, end = states.times[0] - period, states.times[-1] + period
        return _joint_motion(lambda at: interpolate(at, states.times, q), a.scale, space, begin, end)
    track = segment.actions
    if not len(track.times):
        return None
    if a.source == "executed":
        return _executed_actions(track, signals.action_period, period)
    if a.source in ("velocity", "joint_velocity"):
        return _held_velocity(track, a.hold, a.scale)
    reference = TrajectoryReference(track.times, track.values)
    return _joint_motion(reference, a.scale, space, track.times[0], np.inf)


@dataclass(frozen=True)
class PositionSampler:
    """Positions of the tool and of objects at the times of frames.

    kinematics: of the arm, whose joints are those of the proprioception. objects: names; their positions are given in
    `base_frame`.
    """

    kinematics: Kinematics
    base_frame: str
    objects: Mapping[str, str] | Sequence[str] = ()

    def sample(self, at: np.ndarray, joints: np.ndarray, tracks: Mapping[str, Track]) -> dict[str, np.ndarray]:
        """Return positions (n, 3) m in the base frame by name; NaN where an object was not seen.

        at: (n,) s, times of the frames. joints: (n, J) rad at those times. tracks: positions (3,) m of each object.
        """
        positions = {TOOL: np.array([self.kinematics.forward(q)[0] for q in joints])}
        for name in self.objects:
            track, found = tracks[name], np.full((len(at), 3), np.nan)
            if len(track.times):
                is_seen = np.abs(track.times - at[:, None]).min(1) <= SEEN_WITHIN_S
                found[is_seen] = interpolate(at[is_seen], track.times, track.array())
            positions[name] = found
        return positions


@dataclass(frozen=True)
class Matched:
    """One episode of T ticks.

    images: (T + 1, views), index of each image in its topic. stamps: (T + 1,) ns, of the first view. at: (T + 1,) s
    from the segment's start. states: (T + 1, P). actions: (T, A).
    """

    images: np.ndarray
    stamps: np.ndarray
    at: np.ndarray
    states: np.ndarray
    actions: np.ndarray

    def part(self, low: int, high: int) -> Matched:
        """Return frames low to high - 1."""
        rows = slice(low, high)
        return Matched(
            self.images[rows], self.stamps[rows], self.at[rows], self.states[rows], self.actions[low : high - 1]
        )


def match(
    segment: Segment,
    source: ActionSource | None,
    period: float,
    joints: int,
    dropped: Counter,
    *,
    thin: bool = False,
    min_ticks: int = 1,
) -> list[Matched]:
    """Return the episodes of a segment that are at least `min_ticks` long; all else is counted in `dropped` by reason.

    period: control period in s. joints: number J of arm joints. thin: drop the middle of spans in which the arm is
    idle.
    """
    first = segment.views[0]
    if source is None or len(segment.states.times) < 2 or min(len(v.times) for v in segment.views) < 2:
        dropped["images of segments without actions, joint states or two images of each view"] += len(first.times)
        return []
    if (every := float(np.median(np.diff(first.times)))) > SLOWEST_PERIODS * period:
        dropped[f"images of a camera slower than the rate ({1 / every:.1f} Hz)"] += len(first.times)
        return []
    others = [match_nearest(view.times, first.times) for view in segment.views[1:]]
    usable = _usable(segment, others, dropped)
    numbers = [np.array(view.values, np.int64) for view in segment.views]
    states = _states(segment.states, joints)
    episodes = []
    for rows in _runs(first.times, usable, source, period, dropped):
        at = first.times[rows]
        of_views = [rows, *(index[rows] for index, _ in others)]
        episode = Matched(
            np.stack([own[index] for own, index in zip(numbers, of_views, strict=True)], axis=1),
            first.stamps[rows],
            at,
            interpolate(at, segment.states.times, states),
            source.between(at),
        )
        for part in _without_idle(episode, period, joints, dropped) if thin else [episode]:
            if len(part.actions) < min_ticks:
                dropped["frames of runs that are too short"] += len(part.at)
            else:
                episodes.append(part)
    return episodes


def _usable(segment: Segment, others: list[tuple[np.ndarray, np.ndarray]], dropped: Counter) -> np.ndarray:
    """Return a mask (n,) of the first view's images that have images of all other views and joint states near them."""
    times = segment.views[0].times
    together = np.logical_and.reduce([np.ones(len(times), bool), *(near for _, near in others)])
    known = segment.states.times
    longest = max(STATE_GAP_S, 3 * float(np.median(np.diff(known))))
    after = np.searchsorted(known, times)
    low, high = known[np.maximum(after - 1, 0)], known[np.minimum(after, len(known) - 1)]
    inside = (after > 0) & (after < len(known))
    near = np.where(inside, high - low, np.abs(times - low)) <= longest
    near |= np.minimum(np.abs(times - low), np.abs(high - times)) < 1e-6
    if count := int((~together).sum()):
        dropped["images without one of each other view"] += count
    if count := int((together & ~near).sum()):
        dropped["images without joint states"] += count
    return together & near


def _states(track: Track, joints: int) -> np.ndarray:
    """Return the states (n, P); velocities that were not measured are differences of positions."""
    states = track.array()
    states[:, :joints] = remove_wraps(states[:, :joints], track.times)
    velocity = states[:, joints : 2 * joints]
    if np.isnan(velocity).any():
        differences = np.gradient(states[:, :joints], track.times, axis=0)
        states[:, joints : 2 * joints] = np.where(np.isnan(velocity), differences, velocity)
    return states


def _runs(
    times: np.ndarray, usable: np.ndarray, source: ActionSource, period: float, dropped: Counter
) -> list[np.ndarray]:
    """Return runs without a gap: for each its rows of images, one per tick, with actions between all of them."""
    runs, margin = [], MATCH_PERIODS * float(np.median(np.diff(times)))
    end = min(source.end, times[-1])
    begin = _next(usable, 0)
    while begin is not None:
        # No image is the nearest one of more than two ticks in a row; the bound keeps a stray stamp from making a huge
        # grid.
        ticks = min(max(int((end + 1e-6 - times[begin]) / period) + 1, 0), 2 * (len(times) - begin) + 2)
        grid = times[begin] + period * np.arange(ticks)
        rows, good = match_nearest(times, grid)
        good &= usable[rows]
        missing = ticks if good.all() else int(np.argmin(good))
        rows = rows[:missing]
        if not len(rows):
            dropped["images after the last action"] += len(times) - begin
            break
        gap = _first_gap(source.gaps, times[rows])
        if gap is not None:
            tick, resumes = gap
            after = begin + 1 if tick == 0 else rows[tick] + 1
            begin_next = _next(usable, max(int(after), int(np.searchsorted(times, resumes))))
            passed = (begin_next if begin_next is not None else len(times)) - rows[tick] - 1
            dropped["images without actions"] += int(passed) + (tick == 0)
            rows = rows[: tick + 1]
        elif missing < ticks:
            dropped["gaps between images"] += bool(usable[rows[-1] :].any())
            later = int(np.searchsorted(times, grid[missing] - margin))
            begin_next = _next(usable, max(int(rows[-1]) + 1, later))
        else:
            begin_next = None
        if len(rows) > 1:
            runs.append(rows)
        elif gap is None:
            dropped["frames of runs that are too short"] += 1
        begin = begin_next
    return runs


def _next(usable: np.ndarray, low: int) -> int | None:
    found = np.flatnonzero(usable[low:])
    return int(found[0]) + low if len(found) else None


def _first_gap(gaps: np.ndarray, at: np.ndarray) -> tuple[int, float] | None:
    """Return the first tick between times at (n,) that reaches into a gap, and the gap's end; None without one."""
    starts, ends, tolerance = (at[:-1], at[1:], 1e-6) if len(at) > 1 else (at, at, 0.0)  # for rounding of stamps
    ticks, which = np.nonzero((gaps[:, 0] + tolerance < ends[:, None]) & (gaps[:, 1] - tolerance > starts[:, None]))
    return (int(ticks[0]), float(gaps[which[0], 1])) if len(ticks) else None


def _without_idle(episode: Matched, period: float, joints: int, dropped: Counter) -> list[Matched]:
    """Return the parts of an episode that remain after the middle of long idle spans was dropped."""
    speed = np.abs(np.diff(episode.states[:, :joints], axis=0)).max(1, initial=0) / np.diff(episode.at)
    idle = (speed < IDLE_JOINT_SPEED) & (np.abs(episode.actions).max(1, initial=0) < IDLE_ACTION)
    kept = max(1, round(IDLE_KEPT_S / period / 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], idle.astype(int), [0]])))
    parts, begin = [], 0
    for low, high in edges.reshape(-1, 2):
        # An idle span at the start or end of an episode needs no transition on that side.
        left, right = (low + kept if low > 0 else 0), (high - kept if high < len(idle) else len(idle))
        if right - left < 2:
            continue
        if left > begin:
            parts.append(episode.part(begin, left + 1))
        dropped["frames of idle spans"] += int(right - left) - 1 + (left == 0) + (right == len(idle))
        begin = right
    if begin < len(idle):
        parts.append(episode.part(begin, len(idle) + 1))
    return parts
