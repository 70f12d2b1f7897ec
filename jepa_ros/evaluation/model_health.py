"""Quality of a world model on episodes that it was not trained on, and signs of collapse."""

from __future__ import annotations

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.world_model.protocol import Context, WorldModel


@torch.inference_mode()
def encode_frames(model: WorldModel, frames: np.ndarray, batch: int = 256) -> torch.Tensor:
    """Return latents (N, *L) of frames (N, *F) uint8; F: the model's frame_shape."""
    return torch.cat([model.encode(frames[i : i + batch]) for i in range(0, len(frames), batch)])


@torch.inference_mode()
def measure_prediction(
    model: WorldModel,
    data: EpisodeSet,
    latents: torch.Tensor,
    steps: int,
    block: int,
    seed: int,
    count: int = 1024,
) -> dict[str, float]:
    """Return open-loop errors of steps 1..K over those of predicting no change, and the effect of shuffled actions.

    latents: (N, *L) of data.frames. action_sensitivity: one-step error with shuffled over that with true actions.
    """
    rng, h = np.random.default_rng(seed), model.history
    episode, tick = data.draw(count, steps * block, rng)
    rows = torch.from_numpy(data.rows(episode, tick, steps, block, h))
    actions = data.blocks(episode, tick, steps, block, h)
    z = latents[rows]
    context = Context(z[:, :h], torch.from_numpy(data.states[rows[:, :h].numpy()]), actions[:, : h - 1])
    future, other = actions[:, h - 1 :], torch.from_numpy(rng.permutation(count))
    rolled, _ = model.rollout(context, future)
    shuffled, _ = model.rollout(context, future[other, :1])
    targets, still = z[:, h:], z[:, h - 1 : h]
    error = (rolled - targets).square().transpose(0, 1).flatten(1).mean(1)
    nothing = (still - targets).square().transpose(0, 1).flatten(1).mean(1)
    health = {f"error_ratio@{k + 1}": float(error[k] / nothing[k]) for k in range(steps)}
    health["one_step_error"] = float(error[0])
    health["action_sensitivity"] = float((shuffled[:, 0] - targets[:, 0]).square().mean() / error[0])
    return health


def measure_latents(latents: torch.Tensor) -> dict[str, float]:
    """Return for latents (N, *L), patch tokens averaged: effective rank (RankMe, arXiv 2210.02885), share of dead
    dimensions (std below a tenth of the median), and mean std ("spread")."""
    latents = latents.mean(1) if latents.ndim > 2 else latents
    centred = latents - latents.mean(0)
    values = torch.linalg.svdvals(centred)
    share = (values / values.sum()).clamp(min=1e-12)
    std = centred.std(0)
    return {
        "effective_rank": float(torch.exp(-(share * share.log()).sum())),
        "dead_dimensions": float((std < 0.1 * std.median()).float().mean()),
        "spread": float(std.mean()),
    }


def fit_and_probe(train: torch.Tensor, train_tool: np.ndarray, test: torch.Tensor) -> np.ndarray:
    """Return tool positions (M, 2) m that a linear probe predicts from latents `test` (M, *L), fitted on `train`
    (N, *L) with train_tool (N, 2) m. Patch tokens are averaged first."""
    train, test = (z.mean(1) if z.ndim > 2 else z for z in (train, test))
    design = np.hstack([train.numpy(), np.ones((len(train), 1))])
    weights = np.linalg.lstsq(design, train_tool, rcond=None)[0]
    return np.hstack([test.numpy(), np.ones((len(test), 1))]) @ weights


def measure_probe_r2(train: torch.Tensor, train_tool: np.ndarray, test: torch.Tensor, test_tool: np.ndarray) -> float:
    """Return R² of a linear probe of the tool position (m) from the latent alone, fitted on training episodes."""
    residual = ((fit_and_probe(train, train_tool, test) - test_tool) ** 2).sum()
    return float(1 - residual / ((test_tool - test_tool.mean(0)) ** 2).sum())


def describe_collapse(health: dict[str, float]) -> str:
    """Return one sentence if these values of `measure_latents` mean that the latents have collapsed, else ""."""
    if health["spread"] < 1e-3:
        return f"collapsed: every frame has nearly the same latent (mean std {health['spread']:.1e})"
    if health["effective_rank"] < 1.5:
        return f"collapsed: the latents lie on a line (effective rank {health['effective_rank']:.2f})"
    return ""
