"""What was seen, measured and done, by stamp: latents and proprioception as a model wants them. Times in s, one clock.

One thread may add while another one reads: readers take a snapshot first, which CPython makes in one step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import Context

REPORTED_WITHIN = 3
"""Ticks within which the gate's report of a tick has arrived."""


class _History:
    """Items of the last `keep` s by stamp."""

    def __init__(self, keep: float):
        self._keep = keep
        self._items: deque = deque()

    def __len__(self) -> int:
        return len(self._items)

    def clear(self) -> None:
        """Forget all: a new episode begins."""
        self._items.clear()

    def add(self, stamp: float, item) -> bool:
        """Append; False, and everything before is forgotten, where time went back. A stamp seen already is left out."""
        if self._items and stamp == self._items[-1][0]:
            return True
        forward = not self._items or stamp > self._items[-1][0]
        if not forward:
            self.clear()
        self._items.append((stamp, item))
        while stamp - self._items[0][0] > self._keep:
            self._items.popleft()
        return forward

    @property
    def newest(self) -> float | None:
        """Stamp of the newest item, or None."""
        items = tuple(self._items)
        return items[-1][0] if items else None


class LatentHistory(_History):
    """Latents (*L) of the last `keep` s by the stamp of their frame."""

    def tolerance(self) -> float:
        """Half the time between frames, in s."""
        stamps = [stamp for stamp, _ in tuple(self._items)]
        return 0.5 * float(np.median(np.diff(stamps))) + 1e-3 if len(stamps) > 2 else 0.05

    def at(self, stamp: float) -> torch.Tensor | None:
        """The latent nearest to `stamp`, or None where none is within half a frame."""
        nearest = min(tuple(self._items), key=lambda item: abs(item[0] - stamp), default=None)
        return nearest[1] if nearest is not None and abs(nearest[0] - stamp) <= self.tolerance() else None

    def window(self, stamp: float, count: int, step: float) -> torch.Tensor | None:
        """(count, *L): latents `step` s apart up to `stamp`; None where there is none at `stamp`.

        Where older ones are missing the oldest found stands for them: an episode begins at rest.
        """
        found = [self.at(stamp - k * step) for k in range(count)]
        if found[0] is None:
            return None
        for k in range(1, count):
            if found[k] is None:
                found[k] = found[k - 1]
        return torch.stack(found[::-1])


class StateHistory(_History):
    """Proprioception (P,) of the last `keep` s, interpolated by stamp.

    angles: columns in rad that jump between -π and π; they are interpolated the shorter way round.
    """

    def __init__(self, keep: float, angles: tuple[int, ...] = ()):
        super().__init__(keep)
        self._angles = list(angles)

    def window(self, stamp: float, count: int, step: float) -> np.ndarray | None:
        """(count, P): states `step` s apart up to `stamp`, as LatentHistory.window."""
        found = [self.at(stamp - k * step) for k in range(count)]
        if found[0] is None:
            return None
        for k in range(1, count):
            if found[k] is None:
                found[k] = found[k - 1]
        return np.stack(found[::-1])

    @property
    def latest(self) -> np.ndarray | None:
        """The newest state, or None."""
        items = tuple(self._items)
        return items[-1][1] if items else None

    def at(self, stamp: float, slack: float = 0.1) -> np.ndarray | None:
        """The state at `stamp`; the nearest one up to `slack` s outside of what is known, None beyond that."""
        items = tuple(self._items)
        if not items or not items[0][0] - slack <= stamp <= items[-1][0] + slack:
            return None
        right = bisect_right(items, stamp, key=lambda item: item[0])
        if right == 0 or right == len(items):
            return items[min(right, len(items) - 1)][1]
        (t0, before), (t1, after) = items[right - 1], items[right]
        way = after - before
        way[self._angles] = _wrapped(way[self._angles])
        state = before + (stamp - t0) / (t1 - t0) * way
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
        """Forget all."""
        self._items.clear()

    def add(self, start: float, values: np.ndarray) -> None:
        """An action that was executed from `start` on."""
        if self._items and start <= self._items[-1][0]:
            self.clear()
        self._items.append((start, np.asarray(values, float)))
        while start - self._items[0][0] > self._keep:
            self._items.popleft()

    def between(self, start: float, ticks: int, ahead: float = 0.0) -> np.ndarray | None:
        """(ticks, A) actions of the ticks from `start` on, by linear interpolation of what was travelled; None where a
        part of that time is unknown. For `ahead` s after the last known tick its action counts as going on."""
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
    """Why an executed action is not one of the model's ticks, in one sentence; "" where it is. period: s."""
    action = config.action
    # A gate's control_period is its own parameter, and actions of other ticks mean another motion.
    if (action.name, action.dimension) != (action_space, len(values)) or abs(period - config.tick) > 1e-4:
        expected = f"{action.name} of {action.dimension} numbers a tick of {config.tick:g} s"
        return f"executed: expected {expected}, found {action_space} of {len(values)} a tick of {period:g} s"
    return "" if np.isfinite(values).all() else "executed: expected finite values, found NaN or Inf"


class ObservationHistory:
    """What was seen, measured and done, as the context that a model of this configuration imagines from."""

    def __init__(self, config: ModelConfig):
        self._config = config
        keep = (config.history + 1) * config.step + 1.0
        self.latents, self.states = LatentHistory(keep), StateHistory(keep, config.proprioception.angles)
        self.actions = ActionHistory(keep, config.tick)
        self._mean, self._std = np.array(config.proprioception.mean), np.array(config.proprioception.std)

    def clear(self) -> None:
        """A new episode begins."""
        for history in (self.latents, self.states, self.actions):
            history.clear()

    def normalise(self, states: np.ndarray) -> torch.Tensor:
        """Raw proprioception (..., P) → normalised."""
        return torch.as_tensor((states - self._mean) / self._std, dtype=torch.float32)

    def at(self, stamp: float, promised: Callable[[float], np.ndarray] | None = None) -> Context | None:
        """The one situation at `stamp` (B = 1); None where its latent or state is unknown.

        A tick is reported once it is over: until then the last one counts as going on, or what was `promised` for the
        block (K,) from a moment on. Where nothing is known the arm was at rest: the gate reports all that moves.
        """
        config = self._config
        latents = self.latents.window(stamp, config.history, config.step)
        states = self.states.window(stamp, config.history, config.step)
        if latents is None or states is None:
            return None
        past = [stamp - k * config.step for k in range(config.history - 1, 0, -1)]
        blocks = [self._past(start, promised) for start in past]
        actions = np.array(blocks).reshape(-1, config.action_block)
        return Context(latents[None], self.normalise(states)[None], torch.as_tensor(actions[None], dtype=torch.float32))

    def block(self, start: float, ahead: float = 0.0) -> np.ndarray | None:
        """(K,) of the model step from `start` on; None where a part of it is unknown."""
        actions = self.actions.between(start, self._config.block, ahead)
        return None if actions is None else actions.ravel()

    def _past(self, start: float, promised: Callable[[float], np.ndarray] | None) -> np.ndarray:
        known = self.block(start, 0.0 if promised else REPORTED_WITHIN * self._config.tick)
        if known is None and promised:
            known = promised(start)
        return np.zeros(self._config.action_block) if known is None else known
