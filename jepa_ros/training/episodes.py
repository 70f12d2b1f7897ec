"""Episodes in memory, and the windows of them that training and validation see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Episode:
    """One recorded episode at the control rate, T ticks long.

    frames: (T + 1, size, size, 3) uint8, preprocessed. states: (T + 1, P) raw proprioception. actions: (T, A) executed.
    tool: (T + 1, 2) m, tool position computed from the measured joints; for probes and calibration alone, never a loss.
    split: train, val or test.
    """

    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    tool: np.ndarray
    split: str


@dataclass(frozen=True)
class Windows:
    """A batch of B windows of K model steps.

    frames: (B, history + K, size, size, 3) uint8, a model step apart. states: (B, K + 1, P) normalised, from the last
    frame of the history on. actions: (B, K, block * A). tool: (B, K + 1, 2) m.
    """

    frames: torch.Tensor
    states: torch.Tensor
    actions: torch.Tensor
    tool: np.ndarray


class EpisodeSet:
    """Episodes of one split, stacked so that a batch is four index operations.

    mean, std: (P,) that normalise the proprioception, from training episodes. Frames before an episode's first are that
    first frame: the arm had been at rest there.
    """

    def __init__(self, episodes: list[Episode], mean: np.ndarray, std: np.ndarray):
        self.episodes = episodes
        self._start = np.cumsum([0] + [len(e.frames) for e in episodes])
        self.lengths = np.array([len(e.actions) for e in episodes])
        self.frames = np.concatenate([e.frames for e in episodes])
        self.states = np.concatenate([(e.states - mean) / std for e in episodes]).astype(np.float32)
        # One action of padding an episode keeps frames and actions on the same index.
        self.actions = np.concatenate([np.vstack([e.actions, e.actions[-1:]]) for e in episodes]).astype(np.float32)
        self.tool = np.concatenate([e.tool for e in episodes])

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, batch: int, steps: int, block: int, history: int, rng: np.random.Generator) -> Windows:
        """B windows of `steps` model steps of `block` ticks each, uniform over all that fit."""
        room = np.maximum(self.lengths - steps * block + 1, 0)
        episode = rng.choice(len(room), size=batch, p=room / room.sum())
        tick = (rng.random(batch) * room[episode]).astype(int)
        return self.windows(episode, tick, steps, block, history)

    def windows(self, episode: np.ndarray, tick: np.ndarray, steps: int, block: int, history: int) -> Windows:
        """The windows whose history ends at `tick` (B,) of `episode` (B,)."""
        offsets = np.arange(1 - history, steps + 1) * block
        at = self._start[episode][:, None] + np.maximum(tick[:, None] + offsets, 0)
        present = at[:, history - 1 :]
        ticks = present[:, :-1, None] + np.arange(block)
        return Windows(
            torch.from_numpy(self.frames[at]),
            torch.from_numpy(self.states[present]),
            torch.from_numpy(self.actions[ticks].reshape(len(at), steps, -1)),
            self.tool[present],
        )

    def index(self, episode: np.ndarray, tick: np.ndarray) -> np.ndarray:
        """Rows (B,) of `frames`, `states`, `actions` and `tool` for ticks of episodes."""
        return self._start[episode] + tick


def normalisation(episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std (P,) of the proprioception over training episodes; constant fields get a std of 1."""
    states = np.concatenate([e.states for e in episodes if e.split == "train"])
    std = states.std(axis=0)
    return states.mean(axis=0), np.where(std < 1e-4, 1.0, std)
