"""How good a world model is on episodes that it was not trained on, and whether it is collapsing."""

from __future__ import annotations

import numpy as np
import torch

from jepa_ros.training.episodes import EpisodeSet
from jepa_ros.world_model.jepa import Jepa


@torch.inference_mode()
def encode_all(model: Jepa, frames: np.ndarray, batch: int = 256) -> torch.Tensor:
    """Latents (N, D) of frames (N, size, size, 3) uint8."""
    return torch.cat([model.encode(frames[i : i + batch]) for i in range(0, len(frames), batch)])


@torch.inference_mode()
def prediction_health(
    model: Jepa, data: EpisodeSet, latents: torch.Tensor, steps: int, block: int, history: int, seed: int
) -> dict[str, float]:
    """Open-loop error of steps 1..K over the error of "nothing changes", and what shuffled actions do to it.

    latents: (N, D) of data.frames. action_sensitivity: one-step error with shuffled actions over the true one's.
    """
    rng = np.random.default_rng(seed)
    room = np.maximum(data.lengths - steps * block + 1, 0)
    episode = rng.choice(len(room), size=1024, p=room / room.sum())
    tick = (rng.random(1024) * room[episode]).astype(int)
    at = [torch.from_numpy(data.index(episode, np.maximum(tick + k * block, 0))) for k in range(1 - history, steps + 1)]
    z = torch.stack([latents[i] for i in at], dim=1)
    state = torch.from_numpy(data.states[at[history - 1].numpy()])
    index = torch.stack(at[history - 1 : -1], 1).numpy()[:, :, None] + np.arange(block)
    actions = torch.from_numpy(data.actions[index].reshape(1024, steps, -1))
    rolled = model.rollout(z[:, :history], state, actions)
    shuffled = model.rollout(z[:, :history], state, actions[torch.from_numpy(rng.permutation(1024))][:, :1])
    targets, still = z[:, history:], z[:, history - 1 : history]
    error = (rolled - targets).square().mean((0, 2))
    nothing = (still - targets).square().mean((0, 2))
    health = {f"error_ratio@{k + 1}": float(error[k] / nothing[k]) for k in range(steps)}
    health["one_step_error"] = float(error[0])
    health["action_sensitivity"] = float((shuffled[:, 0] - targets[:, 0]).square().mean() / error[0])
    return health


def latent_health(latents: torch.Tensor) -> dict[str, float]:
    """Effective rank (RankMe, arXiv 2210.02885) and share of dimensions whose std is under a tenth of the median's."""
    centred = latents - latents.mean(0)
    values = torch.linalg.svdvals(centred)
    share = (values / values.sum()).clamp(min=1e-12)
    std = centred.std(0)
    return {
        "effective_rank": float(torch.exp(-(share * share.log()).sum())),
        "dead_dimensions": float((std < 0.1 * std.median()).float().mean()),
    }


def probe_r2(train: torch.Tensor, train_tool: np.ndarray, test: torch.Tensor, test_tool: np.ndarray) -> float:
    """R^2 of a linear probe of the tool position (m) from the pixel latent alone, fitted on training episodes."""
    design = np.hstack([train.numpy(), np.ones((len(train), 1))])
    weights = np.linalg.lstsq(design, train_tool, rcond=None)[0]
    predicted = np.hstack([test.numpy(), np.ones((len(test), 1))]) @ weights
    residual = ((predicted - test_tool) ** 2).sum()
    return float(1 - residual / ((test_tool - test_tool.mean(0)) ** 2).sum())
