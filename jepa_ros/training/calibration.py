"""Calibration of a model on validation episodes: the scales of latent distance and surprise that the nodes use."""

from __future__ import annotations

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.planning.goal import latent_distance_pairs
from jepa_ros.world_model.config import DistanceConfig, SurpriseConfig
from jepa_ros.world_model.protocol import Context, WorldModel

SURPRISE_LEVELS = (0.5, 0.9, 0.95, 0.99, 0.999)
SAME_PLACE_M = 0.01
"""Two frames whose tools are closer than this count as the same place."""


def calibrate_distance(latents: torch.Tensor, data: EpisodeSet, seed: int, pairs: int = 400_000) -> DistanceConfig:
    """Return the tolerance (median distance of frames within SAME_PLACE_M) and `far` (10th percentile of all pairs)."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(latents), size=(2, pairs))
    apart = np.linalg.norm(data.tool[first] - data.tool[second], axis=1)
    distance = latent_distance_pairs(latents[first], latents[second])
    near = distance[(apart < SAME_PLACE_M) & (first != second)]
    return DistanceConfig(tolerance=float(np.median(near)), far=float(np.quantile(distance, 0.1)))


@torch.inference_mode()
def calibrate_surprise(model: WorldModel, latents: torch.Tensor, data: EpisodeSet, block: int) -> SurpriseConfig:
    """Return quantiles of the one-step error over all validation windows, and as threshold twice the 99.9 % one."""
    errors, h = [], model.history
    for episode, length in enumerate(data.lengths):
        ticks = np.arange(0, length - block + 1)
        at = np.full(len(ticks), episode)
        rows = data.rows(at, ticks, 1, block, h)
        actions = data.blocks(at, ticks, 1, block, h)
        context = Context(latents[rows[:, :h]], torch.from_numpy(data.states[rows[:, :h]]), actions[:, :-1])
        predicted, _ = model.rollout(context, actions[:, -1:])
        errors.append((predicted[:, 0] - latents[rows[:, h]]).square().flatten(1).mean(1))
    errors = torch.cat(errors)
    quantiles = tuple(float(v) for v in torch.quantile(errors, torch.tensor(SURPRISE_LEVELS)))
    return SurpriseConfig(levels=SURPRISE_LEVELS, errors=quantiles, threshold=2 * quantiles[-1])
