"""Histories of latents, proprioception and executed actions by stamp, and the model context made of them.

Times in s on one clock. One thread may add while another reads: CPython makes the readers' snapshot atomically.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from jepa_ros.robot.motion.angles import nearest_turn
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import Context

REPORT_DELAY_TICKS = 3
"""Control ticks after which the gate's report of a tick has arrived."""


class _History:
    """Items of the last `keep` s by stamp."""

    def __init__(self, keep: float):
        self._keep = keep
        self._items: deque = deque()

    def __len__(self) -> int:
        return len(self._items)

    def clear(self) -> None:
        """Remove all items: a new episode begins."""
        self._items.clear()

    def add(self, stamp: float, item) -> bool:
        """Append an item; one with the newest stamp again is ignored. If time goes back, remove all earlier items and
        return False."""
        if self._items and stamp == self._items[-1][0]:
            return True
        forward = not self._items or stamp > self._items[-1][0]
        if not forward:
            self.clear()
        self._items.append((stamp, item))
        while stamp - self._items[0][0] > self._keep:
            self._items.popleft()
        return forward

    def at(self, stamp: float) -> Any:
        """Return the item of a stamp, or None."""
        raise NotImplementedError

    def window(self, stamp: float, count: int, step: float) -> list | None:
        """Return `count` items, `step` s apart, oldest first, up to `stamp`; None if there is none at `stamp`.

        The oldest item found replaces missing older ones: an episode begins at rest.
        """
        found = [self.at(stamp - k * step) for k in range(count)]
        if found[0] is None:
            return None
        for k in range(1, count):
            if found[k] is None:
                found[k] = found[k - 1]
        return found[::-1]

    @property
    def newest(self) -> float | None:
        """The stamp of the newest item, or None."""
        items = tuple(self._items)
        return items[-1][0] if items else None


class LatentHistory(_History):
    """Latents (*L) of the last `keep` s by the stamp of their frame."""

    def tolerance(self) -> float:
        """Return half the time between frames, in s."""
        stamps = [stamp for stamp, _ in tuple(self._items)]
        return 0.5 * float(np.median(np.diff(stamps))) + 1e-3 if len(stamps) > 2 else 0.05

    def at(self, stamp: float) -> torch.Tensor | None:
        """Return the latent nearest to `stamp`, or None if none lies within half a frame period."""
        nearest = min(tuple(self._items), key=lambda item: abs(item[0] - stamp), default=None)
        return nearest[1] if nearest is not None and abs(nearest[0] - stamp) <= self.tolerance() else None


class StateHistory(_History):
    """Proprioception (P,) of the last `keep` s, interpolated by stamp.

    angles: columns in rad that jump between -π and π; they are interpolated along the shorter arc.
    """

    def __init__(self, keep: float, angles: tuple[int, ...] = ()):
        super().__init__(keep)
        self._angles = list(angles)

    @property
    def latest(self) -> np.ndarray | None:
        """The newest state (P,), or None."""
        items = tuple(self._items)
        return items[-1][1] if items else None

    def at(self, stamp: float, slack: float = 0.1) -> np.ndarray | None:
        """Return the state at `stamp`: the nearest one up to `slack` s outside the known ones, None beyond that."""
        items = tuple(self._items)
        if not items or not items[0][0] - slack <= stamp <= items[-1][0] + slack:
            return None
        right = bisect_right(items, stamp, key=lambda item: item[0])
        if right == 0 or right == len(items):
            return items[min(right, len(items) - 1)][1]
        (t0, before), (t1, after) = items[right - 1], items[right]
        change = after - before
        change[self._angles] = _wrapped(change[self._angles])
        state = before + (stamp - t0) / (t1 - t0) * change
        state[self._angles] = _wrapped(state[self._angles])
        return state


def _wrapped(angles: np.ndarray) -> np.ndarray:
    return (angles + np.pi) % (2 * np.pi) - np.pi


class ActionHistory:
    """Executed actions (A,) of the last `keep` s, one a control tick of `period` s."""

    def __init__(self, keep: float, period: float):
        self._keep, self._period = keep, period
        self._items: deque[tuple[float, np.ndarray]] = deque()

    def clear(self) -> None:
        """Remove all actions."""
        self._items.clear()

    def add(self, start: float, values: np.ndarray) -> None:
        """Add the action of the control tick that began at `start`. If time goes back, remove all earlier ones."""
        if self._items and start <= self._items[-1][0]:
            self.clear()
        self._items.append((start, np.asarray(values, float)))
        while start - self._items[0][0] > self._keep:
            self._items.popleft()

    def between(self, start: float, ticks: int, ahead: float = 0.0) -> np.ndarray | None:
        """Return the actions (ticks, A) from `start` on, by linear interpolation of the path; None if a part of that
        time is unknown. ahead: s for which the last known action is assumed to continue."""
        edges = start + self._period * np.arange(ticks + 1)
        low, high = edges[0] - 1.5 * self._period, edges[-1] - 1e-3
        items = [item for item in tuple(self._items) if low < item[0] < high]
        if not items:
            return None
        starts = np.array([s for s, _ in items])
        gap = np.diff(starts).max(initial=0.0) > 1.5 * self._period
        missing = edges[-1] - (starts[-1] + self._period)
        if gap or edges[0] < starts[0] - 1e-3 or missing > ahead + 1e-3:
            return None
        values = np.array([v for _, v in items])
        if missing > 1e-3:
            more = np.arange(1, np.ceil(missing / self._period - 1e-6) + 1)
            starts = np.append(starts, starts[-1] + more * self._period)
            values = np.vstack([values, *[values[-1:]] * len(more)])
        travelled = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
        known = np.append(starts, starts[-1] + self._period)
        return np.diff(np.stack([np.interp(edges, known, column) for column in travelled.T], axis=1), axis=0)


def executed_problem(config: ModelConfig, action_space: str, period: float, values: np.ndarray) -> str:
    """Return why an executed action does not fit the model's ticks, in one sentence, or "". period: s."""
    action = config.action
    # The gate's control_period is a parameter of its own; actions of another period mean another motion.
    if (action.name, action.dimension) != (action_space, len(values)) or abs(period - config.tick) > 1e-4:
        expected = f"{action.name} of {action.dimension} numbers a tick of {config.tick:g} s"
        return f"executed: expected {expected}, found {action_space} of {len(values)} a tick of {period:g} s"
    return "" if np.isfinite(values).all() else "executed: expected finite values, found NaN or Inf"


def near_mean(states: np.ndarray, mean: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Return proprioception (..., H, P) at H successive times, angles of continuous joints moved by whole turns.

    They do not jump from one time to the next, and the last one is nearest to their mean in the training data, which is
    all that a model knows of turns. mean: (P,), not normalised. columns: those of continuous joints.
    """
    if not len(columns):
        return states
    moved, columns = np.array(states, dtype=float), list(columns)
    angles = np.unwrap(moved[..., columns], axis=-2)
    last = angles[..., -1:, :]
    turned = nearest_turn(last, np.asarray(mean)[columns], np.ones(len(columns), dtype=bool))
    moved[..., columns] = angles + (turned - last)
    return moved


class ObservationHistory:
    """Latents, states and executed actions, and the context of a rollout for a model of this configuration.

    continuous: columns of the proprioception with positions of continuous joints, see near_mean.
    """

    def __init__(self, config: ModelConfig, continuous: tuple[int, ...] = ()):
        self._config, self.continuous = config, continuous
        keep = (config.history + 1) * config.step + 1.0
        self.latents, self.states = LatentHistory(keep), StateHistory(keep, config.proprioception.angles)
        self.actions = ActionHistory(keep, config.tick)
        self._mean, self._std = np.array(config.proprioception.mean), np.array(config.proprioception.std)

    def clear(self) -> None:
        """Remove everything: a new episode begins."""
        for history in (self.latents, self.states, self.actions):
            history.clear()

    def normalise(self, states: np.ndarray) -> torch.Tensor:
        """Return proprioception (..., P), normalised by the model's mean and std."""
        return torch.as_tensor((states - self._mean) / self._std, dtype=torch.float32)

    def context_at(self, stamp: float, committed: Callable[[float], np.ndarray] | None = None) -> Context | None:
        """Return the context at `stamp` (B = 1); None if its latent or state is unknown.

        The gate reports a tick after it ends. Until then the last action is assumed to continue, or `committed` returns
        the block (K,) from a time on. Where nothing is known the arm was at rest: the gate reports all motion.
        """
        config = self._config
        latents = self.latents.window(stamp, config.history, config.step)
        states = self.states.window(stamp, config.history, config.step)
        if latents is None or states is None:
            return None
        past = [stamp - k * config.step for k in range(config.history - 1, 0, -1)]
        blocks = [self._past_block(start, committed) for start in past]
        actions = np.array(blocks).reshape(-1, config.action_block)
        return Context(
            torch.stack(latents)[None],
            self.normalise(near_mean(np.stack(states), self._mean, self.continuous))[None],
            torch.as_tensor(actions[None], dtype=torch.float32),
        )

    def action_block(self, start: float, ahead: float = 0.0) -> np.ndarray | None:
        """Return the executed block (K,) of the model step from `start` on; None if a part of it is unknown."""
        actions = self.actions.between(start, self._config.block, ahead)
        return None if actions is None else actions.ravel()

    def _past_block(self, start: float, committed: Callable[[float], np.ndarray] | None) -> np.ndarray:
        known = self.action_block(start, 0.0 if committed else REPORT_DELAY_TICKS * self._config.tick)
        if known is None and committed:
            known = committed(start)
        return np.zeros(self._config.action_block) if known is None else known
