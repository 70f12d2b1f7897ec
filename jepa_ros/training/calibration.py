"""Scales that the nodes read a model's numbers with, from validation episodes."""

from __future__ import annotations

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.world_model.config import DistanceConfig, SurpriseConfig
from jepa_ros.world_model.protocol import Context, WorldModel

LEVELS = (0.5, 0.9, 0.95, 0.99, 0.999)
NEAR_M = 0.01
"""Two frames whose tools are nearer than this count as the same place, in m."""


def calibrate_distance(latents: torch.Tensor, data: EpisodeSet, seed: int, pairs: int = 400_000) -> DistanceConfig:
    """Tolerance: the median distance of frames under 1 cm apart. Far: the 10th percentile of unrelated frames."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(latents), size=(2, pairs))
    apart = np.linalg.norm(data.tool[first] - data.tool[second], axis=1)
    distance = latent_distance_pairs(latents[first], latents[second])
    near = distance[(apart < NEAR_M) & (first != second)]
    return DistanceConfig(tolerance=float(np.median(near)), far=float(np.quantile(distance, 0.1)))


@torch.inference_mode()
def calibrate_surprise(model: WorldModel, latents: torch.Tensor, data: EpisodeSet, block: int) -> SurpriseConfig:
    """Quantiles of the one-step error over every validation window; the threshold is twice the 99.9 % one."""
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
    quantiles = tuple(float(v) for v in torch.quantile(errors, torch.tensor(LEVELS)))
    return SurpriseConfig(levels=LEVELS, errors=quantiles, threshold=2 * quantiles[-1])


def latent_distance_pairs(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """(N,) mean square over the latent between rows of (N, *L)."""
    return (first - second).square().flatten(1).mean(1).numpy()
