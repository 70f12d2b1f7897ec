"""Surprise: the error of the model's one-step prediction for the executed actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.config import SurpriseConfig
from jepa_ros.world_model.history import ObservationHistory


@dataclass(frozen=True)
class SurpriseReading:
    """error: mean square over the latent. quantile: of the error among validation errors, 0 to 1. threshold: of the
    error, above which `surprised` is true."""

    error: float
    quantile: float
    threshold: float

    @classmethod
    def of(cls, error: float, scale: SurpriseConfig) -> SurpriseReading:
        """Return the reading for a prediction error."""
        quantile = float(np.interp(error, (0.0, *scale.errors), (0.0, *scale.levels)))
        return cls(error, quantile, scale.threshold)

    @property
    def surprised(self) -> bool:
        return self.error > self.threshold


class SurpriseMonitor:
    """Compares each frame with its prediction from the frame one model step before.

    Quantiles are those of the checkpoint, from held-out episodes: a running distribution would adapt to the fault that
    it should report.
    """

    def __init__(self, checkpoint: Checkpoint, observations: ObservationHistory):
        self._model, self._config, self._observations = checkpoint.model, checkpoint.config, observations
        self._last = -np.inf

    @torch.inference_mode()
    def read(self, stamp: float) -> SurpriseReading | None:
        """Return the reading for the frame at `stamp`, once a model step; None in between and where data is missing."""
        config, known = self._config, self._observations
        if stamp < self._last:
            self._last = -np.inf
        if stamp - self._last < config.step - 1e-3:
            return None
        before = stamp - config.step
        now, context, block = known.latents.at(stamp), known.context_at(before), known.action_block(before)
        if now is None or context is None or block is None:
            return None
        self._last = stamp
        actions = torch.as_tensor(block, dtype=torch.float32)[None, None]
        predicted, _ = self._model.rollout(context, actions)
        return SurpriseReading.of(float((predicted[0, 0] - now).square().mean()), config.surprise)
