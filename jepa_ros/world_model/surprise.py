"""Surprise: how far what is seen lies from what the model predicted of the executed actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.config import SurpriseConfig
from jepa_ros.world_model.history import ObservationHistory


@dataclass(frozen=True)
class SurpriseReading:
    """error: mean square over the latent. quantile: its place among validation errors, 0 to 1. threshold: beyond it
    `surprised`."""

    error: float
    quantile: float
    threshold: float

    @classmethod
    def of(cls, error: float, scale: SurpriseConfig) -> SurpriseReading:
        """The reading of a prediction error."""
        quantile = float(np.interp(error, (0.0, *scale.errors), (0.0, *scale.levels)))
        return cls(error, quantile, scale.threshold)

    @property
    def surprised(self) -> bool:
        return self.error > self.threshold


class SurpriseMonitor:
    """Predicts each frame from the one a model step before it. Quantiles are the checkpoint's own, from held-out
    episodes: a running distribution would get used to the fault that it should report."""

    def __init__(self, checkpoint: Checkpoint, seen: ObservationHistory):
        self._model, self._config, self._seen = checkpoint.model, checkpoint.config, seen
        self._last = -np.inf

    @torch.inference_mode()
    def read(self, stamp: float) -> SurpriseReading | None:
        """The reading for the frame at `stamp`, once a model step; None in between and where something is unknown."""
        config, seen = self._config, self._seen
        if stamp < self._last:
            self._last = -np.inf
        if stamp - self._last < config.step - 1e-3:
            return None
        before = stamp - config.step
        now, context, block = seen.latents.at(stamp), seen.context_at(before), seen.action_block(before)
        if now is None or context is None or block is None:
            return None
        self._last = stamp
        actions = torch.as_tensor(block, dtype=torch.float32)[None, None]
        predicted, _ = self._model.rollout(context, actions)
        return SurpriseReading.of(float((predicted[0, 0] - now).square().mean()), config.surprise)
