"""Surprise: how far what is seen lies from what the model predicted of the executed actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.history import ActionHistory, LatentHistory, StateHistory


@dataclass(frozen=True)
class SurpriseReading:
    """error: mean square over D. quantile: its place among validation errors, 0 to 1. threshold: of `surprised`."""

    error: float
    quantile: float
    threshold: float

    @property
    def surprised(self) -> bool:
        return self.error > self.threshold


class SurpriseMonitor:
    """Predicts each frame from the one a model step before it. Quantiles are the checkpoint's own, from held-out
    episodes: a running distribution would get used to the fault that it should report."""

    def __init__(self, checkpoint: Checkpoint):
        config = checkpoint.config
        self._checkpoint, self._config = checkpoint, config
        keep = (config.history + 1) * config.step + 1.0
        self.latents, self.states = LatentHistory(keep), StateHistory(keep)
        self.actions = ActionHistory(keep, config.tick)
        self._mean = np.array(config.proprioception.mean)
        self._std = np.array(config.proprioception.std)
        self._last = -np.inf

    def clear(self) -> None:
        """A new episode begins."""
        for history in (self.latents, self.states, self.actions):
            history.clear()
        self._last = -np.inf

    @torch.inference_mode()
    def read(self, stamp: float) -> SurpriseReading | None:
        """The reading for the frame at `stamp`, once a model step; None in between and where something is unknown."""
        config = self._config
        if stamp < self._last:
            self._last = -np.inf
        if stamp - self._last < config.step - 1e-3:
            return None
        before = stamp - config.step
        now, history = self.latents.at(stamp), self.latents.window(before, config.history, config.step)
        state, actions = self.states.at(before), self.actions.between(before, config.block)
        if now is None or history is None or state is None or actions is None:
            return None
        self._last = stamp
        normalised = torch.as_tensor((state - self._mean) / self._std, dtype=torch.float32)
        block = torch.as_tensor(actions.ravel(), dtype=torch.float32)
        predicted, _ = self._checkpoint.model.predictor(history[None], normalised[None], block[None])
        error = float((predicted[0] - now).square().mean())
        s = config.surprise
        quantile = float(np.interp(error, (0.0, *s.errors), (0.0, *s.levels)))
        return SurpriseReading(error, quantile, s.threshold)
