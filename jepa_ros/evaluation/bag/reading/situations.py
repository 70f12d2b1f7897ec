"""Situations of a whole recording: for every frame what a model imagines from, what was done next, and what came of it.

The same rules as the live nodes' histories (world_model/history.py), on arrays: latents nearest by stamp within half a
frame, states interpolated, actions as what was travelled. Times are s since the bag's first stamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jepa_ros.evaluation.bag.reading.records import Recorded
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import Context

SLACK = 0.1  # s beyond the known states that the nearest one stands for
JITTER = 1e-3  # s


@dataclass(frozen=True)
class Stretch:
    """A part of a recording without a jump of time or a new episode. rows (n,) of the frames; times (n,) s; state_times
    (m,), states (m, P); action_starts (k,), actions (k, A); all ascending."""

    rows: np.ndarray
    times: np.ndarray
    state_times: np.ndarray
    states: np.ndarray
    action_starts: np.ndarray
    actions: np.ndarray

    @property
    def tolerance(self) -> float:
        """s between a wanted moment and the frame that stands for it, at most."""
        return 0.5 * float(np.median(np.diff(self.times))) + JITTER if len(self.times) > 2 else 0.05


@dataclass(frozen=True)
class Windows:
    """N situations, one a frame that has a context. frames (N,): numbers of these frames in the bag.

    past (N, h): frames of the context, oldest first. states (N, h, P) normalised. history (N, h - 1, K) and future
    (N, H, K): executed blocks, 0 where unknown. targets (N, H): frames k steps later, -1 where there is none.
    known (N, H): whether target and all blocks up to it are known. target_states (N, H, P) normalised, NaN where
    unknown.
    """

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

    def context(self, recorded: Recorded, rows: np.ndarray) -> Context:
        """The contexts of situations `rows` (B,)."""
        states, history = (torch.from_numpy(x[rows]) for x in (self.states, self.history))
        return Context(recorded.latents.rows(self.past[rows]), states, history)


def zero_of(recorded: Recorded) -> int:
    """ns that times of a recording count from: its first stamp."""
    stamps = (recorded.frame_stamps, recorded.states.stamps, recorded.actions.stamps)
    return min((min(s) for s in stamps if s), default=0)


def stretches(recorded: Recorded, config: ModelConfig) -> list[Stretch]:
    """The parts of a recording, in order."""
    zero = zero_of(recorded)
    frames = _Track(recorded.frame_stamps, recorded.frame_epochs, zero)
    states = _Track(recorded.states.stamps, recorded.states.epochs, zero)
    actions = _Track(recorded.actions.stamps, recorded.actions.epochs, zero)
    state_values = np.array(recorded.states.values).reshape(len(states.times), config.proprioception.dimension)
    action_values = np.array(recorded.actions.values).reshape(len(actions.times), config.action.dimension)
    found = []
    for epoch in range(recorded.clock.epoch + 1):
        begins = sorted((stamp - zero) * 1e-9 for stamp, of in recorded.episodes if of == epoch)
        edges = [-np.inf, *begins, np.inf]
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            rows = frames.between(epoch, low, high)
            if len(rows):
                s, a = states.between(epoch, low, high), actions.between(epoch, low, high)
                found.append(
                    Stretch(
                        rows, frames.times[rows], states.times[s], state_values[s], actions.times[a], action_values[a]
                    )
                )
    return found


class _Track:
    """Times s and epochs of a series, in the order in which it came."""

    def __init__(self, stamps: Sequence[int], epochs: Sequence[int], zero: int):
        self.times = (np.array(stamps, np.int64) - zero) * 1e-9
        self._epochs = np.array(epochs, np.int64)

    def between(self, epoch: int, low: float, high: float) -> np.ndarray:
        """Rows of an epoch with times in [low, high), ascending and no stamp twice."""
        inside = (self._epochs == epoch) & (self.times >= low - JITTER) & (self.times < high - JITTER)
        rows = np.flatnonzero(inside)
        rows = rows[np.argsort(self.times[rows], kind="stable")]
        return rows[np.r_[True, np.diff(self.times[rows]) > 0]] if len(rows) else rows


def windows(parts: list[Stretch], config: ModelConfig, horizon: int) -> Windows:
    """The situations of all parts. horizon: H."""
    made = [_of_stretch(part, config, horizon) for part in parts]
    fields = Windows.__dataclass_fields__
    if not made:
        h, p, k = config.history, config.proprioception.dimension, config.action_block
        shapes = [(0,), (0, h), (0, h, p), (0, h - 1, k), (0, horizon, k), (0, horizon), (0, horizon), (0, horizon, p)]
        kinds = [int, int, np.float32, np.float32, np.float32, int, bool, np.float32]
        return Windows(*(np.zeros(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)))
    return Windows(*(np.concatenate([getattr(m, name) for m in made]) for name in fields))


@dataclass(frozen=True)
class Moments:
    """What is known at any moments (n,) of a part. past (n, h): indices of its frames, oldest first. states (n, h, P)
    normalised. history (n, h - 1, K); block (n, K) from the moment on.

    seen (n,): whether there is a context. known (n,): whether there is a block, too.
    """

    past: np.ndarray
    states: np.ndarray
    history: np.ndarray
    block: np.ndarray
    seen: np.ndarray
    known: np.ndarray


def at(part: Stretch, moments: np.ndarray, config: ModelConfig) -> Moments:
    """Situations at `moments` (n,) s, by the rules of ObservationHistory.at."""
    h, step = config.history, config.step
    past = np.empty((len(moments), h), int)
    past[:, -1] = nearest(part, moments)
    for k in range(1, h):  # where an older one is missing the oldest found stands for it: an episode begins at rest
        index = nearest(part, moments - k * step)
        past[:, h - 1 - k] = np.where(index < 0, past[:, h - k], index)
    states, known = _states(part, moments[:, None] - step * np.arange(h - 1, -1, -1), config)
    for k in range(1, h):
        missing = ~known[:, h - 1 - k]
        states[missing, h - 1 - k] = states[missing, h - k]
    history, _ = blocks(part, moments[:, None] - step * np.arange(h - 1, 0, -1), config)
    block, done = blocks(part, moments[:, None], config)
    seen = past[:, -1] >= 0
    if config.proprioception.dimension:
        seen &= known[:, -1]
    return Moments(past, _normalised(states, config), history, block[:, 0], seen, seen & done[:, 0])


def _normalised(states: np.ndarray, config: ModelConfig) -> np.ndarray:
    return (states - np.array(config.proprioception.mean)) / np.array(config.proprioception.std)


def _of_stretch(part: Stretch, config: ModelConfig, horizon: int) -> Windows:
    step, now, rows = config.step, part.times, part.rows
    situations = at(part, now, config)
    future, done = blocks(part, now[:, None] + step * np.arange(horizon), config)
    ahead = now[:, None] + step * np.arange(1, horizon + 1)
    targets = np.stack([nearest(part, ahead[:, k]) for k in range(horizon)], axis=1)
    target_states, target_known = _states(part, ahead, config)
    target_states[~target_known] = np.nan
    use = np.flatnonzero(situations.seen)
    return Windows(
        rows[use],
        rows[situations.past[use]],
        situations.states[use].astype(np.float32),
        situations.history[use].astype(np.float32),
        future[use].astype(np.float32),
        np.where(targets < 0, -1, rows[targets])[use],
        ((targets >= 0) & np.logical_and.accumulate(done, axis=1))[use],
        _normalised(target_states, config)[use].astype(np.float32),
    )


def nearest(part: Stretch, wanted: np.ndarray) -> np.ndarray:
    """Index (n,) of the frame nearest to each wanted time (n,) s; -1 where none is within the tolerance."""
    after = np.clip(np.searchsorted(part.times, wanted), 1, max(len(part.times) - 1, 1))
    after = np.minimum(after, len(part.times) - 1)
    before = np.maximum(after - 1, 0)
    index = np.where(wanted - part.times[before] <= part.times[after] - wanted, before, after)
    return np.where(np.abs(part.times[index] - wanted) <= part.tolerance, index, -1)


def states_at(part: Stretch, wanted: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(n, P) raw states at times (n,), NaN where unknown."""
    states, known = _states(part, wanted[:, None], config)
    states[~known] = np.nan
    return states[:, 0]


def _states(part: Stretch, wanted: np.ndarray, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Raw states (n, c, P) at times (n, c), and whether they are known (n, c)."""
    shape, times = wanted.shape, part.state_times
    if not len(times):
        return np.zeros((*shape, config.proprioception.dimension)), np.zeros(shape, bool)
    columns = []
    for number, column in enumerate(part.states.T):
        angle = number in config.proprioception.angles
        values = np.interp(wanted.ravel(), times, np.unwrap(column) if angle else column)
        columns.append((values + np.pi) % (2 * np.pi) - np.pi if angle else values)
    known = (wanted >= times[0] - SLACK) & (wanted <= times[-1] + SLACK)
    found = np.stack(columns, axis=1) if columns else np.zeros((wanted.size, 0))
    return found.reshape(*shape, -1), known


def blocks(part: Stretch, starts: np.ndarray, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Executed blocks (n, c, K) of the model steps from `starts` (n, c) s on, and whether they are known (n, c); 0
    where they are not: the gate reports all that moves."""
    period, begins = config.tick, part.action_starts
    width = config.action_block
    if not len(begins) or not starts.size:
        return np.zeros((*starts.shape, width)), np.zeros(starts.shape, bool)
    edges = starts[..., None] + period * np.arange(config.block + 1)
    travelled = np.vstack([np.zeros(part.actions.shape[1]), np.cumsum(part.actions, axis=0)])
    breaks = np.flatnonzero(np.diff(begins) > 1.5 * period)  # the run of ticks that a moment lies in must not break
    first, last = np.r_[begins[0], begins[breaks + 1]], np.r_[begins[breaks], begins[-1]] + period
    at = np.insert(np.append(begins, last[-1]), breaks + 1, last[:-1])  # nothing is travelled between two runs
    travelled = np.insert(travelled, breaks + 1, travelled[breaks + 1], axis=0)
    values = np.stack([np.interp(edges.ravel(), at, column) for column in travelled.T], axis=1)
    values = np.diff(values.reshape(*edges.shape, -1), axis=-2).reshape(*starts.shape, width)
    run = np.clip(np.searchsorted(first, edges[..., 0] + JITTER, side="right") - 1, 0, len(first) - 1)
    known = (edges[..., 0] >= first[run] - JITTER) & (edges[..., -1] <= last[run] + JITTER)
    return np.where(known[..., None], values, 0.0), known
