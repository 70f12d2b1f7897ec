"""Episodes in memory, and the windows of them that training and validation use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from jepa_ros.errors import InputError


@dataclass(frozen=True)
class Episode:
    """One recorded episode at the control rate, T ticks long.

    frames: (T + 1, size, size, 3) uint8, preprocessed; of C > 1 cameras (T + 1, C, size, size, 3).
    states: (T + 1, P) raw proprioception. actions: (T, A) executed. split: train, val or test.
    tool: (T + 1, D) m, the tool's coordinates in the motion space, computed from the measured joints; only for probes
    and calibration, never in a loss. positions: (T + 1, 3) m in the base frame by name, of the tool and of objects; NaN
    where an object was not seen.
    """

    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    tool: np.ndarray
    split: str
    positions: Mapping[str, np.ndarray] = field(default_factory=dict)

    def blind(self) -> Episode:
        """Return the same episode without proprioception (P = 0)."""
        return replace(self, states=self.states[:, :0])


@dataclass(frozen=True)
class Windows:
    """A batch of B windows of n frames, one model step apart: `history` past frames, then K steps.

    frames: (B, n, size, size, 3) uint8, with C > 1 cameras (B, n, C, size, size, 3). states: (B, n, P) normalised.
    actions: (B, n - 1, block * A), between them.
    """

    frames: torch.Tensor
    states: torch.Tensor
    actions: torch.Tensor

    def to(self, device: torch.device) -> Windows:
        """Return the same windows on a device."""
        return Windows(*(x.to(device) for x in (self.frames, self.states, self.actions)))


class EpisodeSet:
    """Episodes of one split, stacked so that a batch is four index operations.

    mean, std: (P,) that normalise the proprioception, from training episodes. Before an episode's first frame the arm
    counts as at rest: the first frame and state are repeated, with zero actions.
    """

    def __init__(self, episodes: list[Episode], mean: np.ndarray, std: np.ndarray):
        self.episodes = episodes
        self._start = np.cumsum([0] + [len(e.frames) for e in episodes])
        self.lengths = np.array([len(e.actions) for e in episodes])
        self.frames = stack_frames([e.frames for e in episodes])
        self.states = np.concatenate([(e.states - mean) / std for e in episodes]).astype(np.float32)
        # One padding action per episode keeps frames and actions at the same index.
        self.actions = np.concatenate([np.vstack([e.actions, e.actions[-1:]]) for e in episodes]).astype(np.float32)
        self.tool = np.concatenate([e.tool for e in episodes])

    def __len__(self) -> int:
        return len(self.frames)

    def draw(self, count: int, ticks: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw episodes and ticks (count,) that at least `ticks` ticks follow, uniform over all that fit.

        Raises InputError where no episode is that long.
        """
        room = np.maximum(self.lengths - ticks + 1, 0)
        if not room.any():
            raise InputError(
                f"episodes: expected one of at least {ticks} ticks, found at most {self.lengths.max(initial=0)}"
            )
        episode = rng.choice(len(room), size=count, p=room / room.sum())
        return episode, (rng.random(count) * room[episode]).astype(int)

    def rows(self, episode: np.ndarray, tick: np.ndarray, steps: int, block: int, history: int) -> np.ndarray:
        """Return the rows (B, history + steps) of frames one model step apart, the history ending at `tick` (B,) of
        `episode` (B,)."""
        return self._start[episode][:, None] + np.maximum(tick[:, None] + _offsets(steps, block, history), 0)

    def blocks(self, episode: np.ndarray, tick: np.ndarray, steps: int, block: int, history: int) -> torch.Tensor:
        """Return the action blocks (B, history + steps - 1, block * A) between the frames of `rows`."""
        ticks = (tick[:, None] + _offsets(steps, block, history)[:-1])[:, :, None] + np.arange(block)
        actions = self.actions[self._start[episode][:, None, None] + np.maximum(ticks, 0)]
        actions = np.where(ticks[..., None] < 0, np.float32(0), actions)
        return torch.from_numpy(actions.reshape(*actions.shape[:2], -1))

    def windows(self, episode: np.ndarray, tick: np.ndarray, steps: int, block: int, history: int) -> Windows:
        """Return the windows whose history ends at `tick` (B,) of `episode` (B,)."""
        rows = self.rows(episode, tick, steps, block, history)
        return Windows(
            torch.from_numpy(self.frames[rows]),
            torch.from_numpy(self.states[rows]),
            self.blocks(episode, tick, steps, block, history),
        )

    def index(self, episode: np.ndarray, tick: np.ndarray) -> np.ndarray:
        """Return the rows (B,) of `frames`, `states`, `actions` and `tool` for ticks of episodes."""
        return self._start[episode] + tick


class MappedFrames:
    """Frames of several episodes that stay on disk, read like one array (N, *F) uint8.

    The index may be an integer, a slice, a range or an array of integers.
    """

    def __init__(self, parts: list[np.ndarray]):
        self._parts = parts
        self._start = np.cumsum([0] + [len(part) for part in parts])
        self.shape = (int(self._start[-1]), *parts[0].shape[1:])
        self.dtype, self.ndim = parts[0].dtype, parts[0].ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> np.ndarray:
        rows = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        flat = rows.ravel()
        which = np.searchsorted(self._start, flat, "right") - 1
        made = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for part in np.unique(which):
            own = np.flatnonzero(which == part)
            made[own] = self._parts[part][flat[own] - self._start[part]]
        return made.reshape(*rows.shape, *self.shape[1:])


def stack_frames(parts: list[np.ndarray]) -> np.ndarray | MappedFrames:
    """Return the frames of episodes as one array; memory-mapped frames stay on disk."""
    if parts and all(isinstance(part, np.memmap) for part in parts):
        return MappedFrames(parts)
    return np.concatenate(parts)


def _offsets(steps: int, block: int, history: int) -> np.ndarray:
    return np.arange(1 - history, steps + 1) * block


def normalisation(episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std (P,) of the proprioception over training episodes; the std of constant fields is 1."""
    states = np.concatenate([e.states for e in episodes if e.split == "train"])
    std = states.std(axis=0)
    return states.mean(axis=0), np.where(std < 1e-4, 1.0, std)
