"""Situations of a recording: for every frame the context a model predicts from, the actions after it, the outcome.

The rules are those of the live nodes' histories (world_model/history.py), applied to arrays: latents nearest by stamp
within half a frame, states interpolated, actions as travelled distance. Times are s since the bag's first stamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, Recording
from jepa_ros.robot.motion.angles import nearest_turn
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.history import near_mean
from jepa_ros.world_model.protocol import Context

STATE_SLACK_S = 0.1
"""How long before the first and after the last known state the nearest one still counts."""
JITTER_S = 1e-3


@dataclass(frozen=True)
class Samples:
    """What is known at given times (n,) of a segment. past (n, h): indices of the context's frames in the segment,
    oldest first. states (n, h, P) normalised. history (n, h - 1, K): executed blocks before; block (n, K): the one
    after. has_context (n,); has_block (n,): there is a context and the block is known, too."""

    past: np.ndarray
    states: np.ndarray
    history: np.ndarray
    block: np.ndarray
    has_context: np.ndarray
    has_block: np.ndarray


@dataclass(frozen=True)
class Segment:
    """A part of a recording without a jump of time or a new episode. rows (n,): numbers of its frames; times (n,) s;
    state_times (m,), states (m, P); action_starts (k,), actions (k, A); all ascending. continuous: columns of the
    states with positions of continuous joints."""

    config: ModelConfig
    rows: np.ndarray
    times: np.ndarray
    state_times: np.ndarray
    states: np.ndarray
    action_starts: np.ndarray
    actions: np.ndarray
    continuous: tuple[int, ...] = ()

    @property
    def tolerance(self) -> float:
        """Largest distance in s of the frame that stands for a wanted time."""
        return 0.5 * float(np.median(np.diff(self.times))) + JITTER_S if len(self.times) > 2 else 0.05

    def nearest_frames(self, wanted: np.ndarray) -> np.ndarray:
        """Return the indices (n,) of the frames nearest to times (n,); -1 where none is within the tolerance."""
        after = np.clip(np.searchsorted(self.times, wanted), 1, max(len(self.times) - 1, 1))
        after = np.minimum(after, len(self.times) - 1)
        before = np.maximum(after - 1, 0)
        index = np.where(wanted - self.times[before] <= self.times[after] - wanted, before, after)
        return np.where(np.abs(self.times[index] - wanted) <= self.tolerance, index, -1)

    def states_at(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return raw states (*S, P) at times (*S), and whether they are known (*S)."""
        shape, times = wanted.shape, self.state_times
        if not len(times):
            return np.zeros((*shape, self.config.proprioception.dimension)), np.zeros(shape, bool)
        columns = []
        for number, column in enumerate(self.states.T):
            angle = number in self.config.proprioception.angles
            values = np.interp(wanted.ravel(), times, np.unwrap(column) if angle else column)
            columns.append((values + np.pi) % (2 * np.pi) - np.pi if angle else values)
        known = (wanted >= times[0] - STATE_SLACK_S) & (wanted <= times[-1] + STATE_SLACK_S)
        found = np.stack(columns, axis=1) if columns else np.zeros((wanted.size, 0))
        return found.reshape(*shape, -1), known

    def known_states_at(self, wanted: np.ndarray) -> np.ndarray:
        """Return raw states (*S, P) at times (*S), NaN where unknown."""
        states, known = self.states_at(wanted)
        states[~known] = np.nan
        return states

    def blocks_at(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return executed blocks (n, c, K) of the model steps that start at `starts` (n, c), and whether they are known
        (n, c). Unknown blocks are 0: the gate reports every motion."""
        period, begins = self.config.tick, self.action_starts
        width = self.config.action_block
        if not len(begins) or not starts.size:
            return np.zeros((*starts.shape, width)), np.zeros(starts.shape, bool)
        edges = starts[..., None] + period * np.arange(self.config.block + 1)
        travelled = np.vstack([np.zeros(self.actions.shape[1]), np.cumsum(self.actions, axis=0)])
        breaks = np.flatnonzero(np.diff(begins) > 1.5 * period)  # a block must lie in one unbroken run of ticks
        first, last = np.r_[begins[0], begins[breaks + 1]], np.r_[begins[breaks], begins[-1]] + period
        at = np.insert(np.append(begins, last[-1]), breaks + 1, last[:-1])  # no motion between two runs
        travelled = np.insert(travelled, breaks + 1, travelled[breaks + 1], axis=0)
        values = np.stack([np.interp(edges.ravel(), at, column) for column in travelled.T], axis=1)
        values = np.diff(values.reshape(*edges.shape, -1), axis=-2).reshape(*starts.shape, width)
        run = np.clip(np.searchsorted(first, edges[..., 0] + JITTER_S, side="right") - 1, 0, len(first) - 1)
        known = (edges[..., 0] >= first[run] - JITTER_S) & (edges[..., -1] <= last[run] + JITTER_S)
        return np.where(known[..., None], values, 0.0), known

    def sample(self, times: np.ndarray) -> Samples:
        """Return what is known at `times` (n,), by the rules of ObservationHistory.context_at."""
        config, h, step = self.config, self.config.history, self.config.step
        past = np.empty((len(times), h), int)
        past[:, -1] = self.nearest_frames(times)
        for k in range(1, h):  # a missing older frame is replaced by the oldest found: episodes start at rest
            index = self.nearest_frames(times - k * step)
            past[:, h - 1 - k] = np.where(index < 0, past[:, h - k], index)
        states, known = self.states_at(times[:, None] - step * np.arange(h - 1, -1, -1))
        for k in range(1, h):
            missing = ~known[:, h - 1 - k]
            states[missing, h - 1 - k] = states[missing, h - k]
        history, _ = self.blocks_at(times[:, None] - step * np.arange(h - 1, 0, -1))
        block, done = self.blocks_at(times[:, None])
        has_context = past[:, -1] >= 0
        if config.proprioception.dimension:
            has_context &= known[:, -1]
        states = near_mean(states, np.array(config.proprioception.mean), self.continuous)
        return Samples(past, normalise(states, config), history, block[:, 0], has_context, has_context & done[:, 0])


@dataclass(frozen=True)
class Situations:
    """N situations of a recording, one for each frame that has a context. frames (N,): numbers of these frames.

    past (N, h): frames of the context, oldest first. states (N, h, P) normalised. history (N, h - 1, K) and future
    (N, H, K): executed blocks, 0 where unknown. targets (N, H): frames k steps later, -1 where there is none.
    known (N, H): the target and all blocks up to it are known. target_states (N, H, P) normalised, NaN where unknown.
    segments: the parts of the recording in order. spec: what they were computed for.
    """

    spec: EvaluationSpec
    recording: Recording
    segments: tuple[Segment, ...]
    frames: np.ndarray
    past: np.ndarray
    states: np.ndarray
    history: np.ndarray
    future: np.ndarray
    targets: np.ndarray
    known: np.ndarray
    target_states: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def context(self, rows: np.ndarray) -> Context:
        """Return the contexts of situations `rows` (B,)."""
        states, history = (torch.from_numpy(x[rows]) for x in (self.states, self.history))
        return Context(self.recording.latents.rows(self.past[rows]), states, history)

    def segment_of(self, frame: int) -> Segment:
        """Return the segment that contains a frame."""
        return next(segment for segment in self.segments if frame in segment.rows)

    @cached_property
    def continuous(self) -> np.ndarray:
        """(J,) bool: True for continuous joints of the proprioception; all False where there is no description."""
        return self.recording.find_continuous(self.spec.config.proprioception.joints)

    @cached_property
    def frame_states(self) -> np.ndarray:
        """(n, P) raw states at all frames of the recording, continuous joints on the turn nearest to their mean in the
        training data; NaN where unknown."""
        states = np.full((len(self.recording.frame_stamps), self.spec.config.proprioception.dimension), np.nan)
        for segment in self.segments:
            states[segment.rows] = segment.known_states_at(segment.times)
        joints, mean = len(self.continuous), np.array(self.spec.config.proprioception.mean)
        states[:, :joints] = nearest_turn(states[:, :joints], mean[:joints], self.continuous)
        return states

    def tool_positions(self) -> np.ndarray | None:
        """Return the tool's positions (n, 3) m in the base frame at all frames, NaN where joints are unknown; None
        where the robot's kinematics are unknown."""
        states, robot, proprioception = self.frame_states, self.spec.robot, self.spec.config.proprioception
        if proprioception.kind == "tool_pose":
            rotation = robot.camera.rotation_to_base
            return states[:, :3] if rotation is None else states[:, :3] @ rotation_matrix(rotation).T
        if not proprioception.joints:
            return None
        try:
            kinematics = self.recording.make_kinematics(robot)
        except InputError:  # reported by planner_agreement
            return None
        tool = np.full((len(states), 3), np.nan)
        for row in np.flatnonzero(np.isfinite(states).all(axis=1)):
            tool[row] = kinematics.forward(states[row, : len(proprioception.joints)])[0]
        return tool


def find_situations(recording: Recording, spec: EvaluationSpec) -> Situations:
    """Return the situations of a whole recording; spec.horizon: H."""
    config, segments = spec.config, _find_segments(recording, spec.config)
    states, actions = np.zeros((0, config.proprioception.dimension)), np.zeros((0, config.action.dimension))
    empty = Segment(config, np.zeros(0, int), np.zeros(0), np.zeros(0), states, np.zeros(0), actions)
    parts = zip(*(_situations_of(segment, config, spec.horizon) for segment in segments or [empty]), strict=True)
    return Situations(spec, recording, tuple(segments), *(np.concatenate(part) for part in parts))


def normalise(states: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Return raw states (..., P) in units of the training data's standard deviation from its mean."""
    return (states - np.array(config.proprioception.mean)) / np.array(config.proprioception.std)


def evenly_spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` of `rows` (n,), evenly spread."""
    if not len(rows) or not count:
        return rows[:0]
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def _find_segments(recording: Recording, config: ModelConfig) -> list[Segment]:
    zero = recording.first_stamp
    frames = _Track(recording.frame_stamps, recording.frame_epochs, zero)
    states = _Track(recording.states.stamps, recording.states.epochs, zero)
    actions = _Track(recording.actions.stamps, recording.actions.epochs, zero)
    state_values = np.array(recording.states.values).reshape(len(states.times), config.proprioception.dimension)
    action_values = np.array(recording.actions.values).reshape(len(actions.times), config.action.dimension)
    continuous = tuple(np.flatnonzero(recording.find_continuous(config.proprioception.joints)).tolist())
    found = []
    for epoch in range(recording.clock.epoch + 1):
        begins = sorted((stamp - zero) * 1e-9 for stamp, of in recording.episodes if of == epoch)
        edges = [-np.inf, *begins, np.inf]
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            rows = frames.between(epoch, low, high)
            if len(rows):
                s, a = states.between(epoch, low, high), actions.between(epoch, low, high)
                tracks = (states.times[s], state_values[s], actions.times[a], action_values[a])
                found.append(Segment(config, rows, frames.times[rows], *tracks, continuous))
    return found


class _Track:
    """Times in s and epochs of a series, in the order of arrival."""

    def __init__(self, stamps: Sequence[int], epochs: Sequence[int], zero: int):
        self.times = (np.array(stamps, np.int64) - zero) * 1e-9
        self._epochs = np.array(epochs, np.int64)

    def between(self, epoch: int, low: float, high: float) -> np.ndarray:
        """Return the rows of an epoch with times in [low, high), ascending and without equal stamps."""
        inside = (self._epochs == epoch) & (self.times >= low - JITTER_S) & (self.times < high - JITTER_S)
        rows = np.flatnonzero(inside)
        rows = rows[np.argsort(self.times[rows], kind="stable")]
        return rows[np.r_[True, np.diff(self.times[rows]) > 0]] if len(rows) else rows


def _situations_of(segment: Segment, config: ModelConfig, horizon: int) -> tuple[np.ndarray, ...]:
    """Return the arrays of Situations for one segment."""
    step, now, rows = config.step, segment.times, segment.rows
    samples = segment.sample(now)
    future, done = segment.blocks_at(now[:, None] + step * np.arange(horizon))
    ahead = now[:, None] + step * np.arange(1, horizon + 1)
    targets = np.stack([segment.nearest_frames(ahead[:, k]) for k in range(horizon)], axis=1)
    target_states = segment.known_states_at(ahead)
    use = np.flatnonzero(samples.has_context)
    return (
        rows[use],
        rows[samples.past[use]],
        samples.states[use].astype(np.float32),
        samples.history[use].astype(np.float32),
        future[use].astype(np.float32),
        np.where(targets < 0, -1, rows[targets])[use],
        ((targets >= 0) & np.logical_and.accumulate(done, axis=1))[use],
        normalise(target_states, config)[use].astype(np.float32),
    )
