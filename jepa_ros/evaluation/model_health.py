"""How good a world model is on episodes that it was not trained on, and whether it is collapsing."""

from __future__ import annotations

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.world_model.protocol import Context, WorldModel


@torch.inference_mode()
def encode_all(model: WorldModel, frames: np.ndarray, batch: int = 256) -> torch.Tensor:
    """Latents (N, *L) of frames (N, *F) uint8, F the model's frame_shape."""
    return torch.cat([model.encode(frames[i : i + batch]) for i in range(0, len(frames), batch)])


@torch.inference_mode()
def prediction_health(
    model: WorldModel,
    data: EpisodeSet,
    latents: torch.Tensor,
    steps: int,
    block: int,
    seed: int,
    count: int = 1024,
) -> dict[str, float]:
    """Open-loop error of steps 1..K over the error of "nothing changes", and what shuffled actions do to it.

    latents: (N, *L) of data.frames. action_sensitivity: one-step error with shuffled actions over the true one's.
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


def latent_health(latents: torch.Tensor) -> dict[str, float]:
    """Of latents (N, *L): effective rank (RankMe, arXiv 2210.02885), share of dimensions whose std is under a tenth of
    the median's, mean std ("spread"). Patch tokens are averaged first."""
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


def probe(train: torch.Tensor, train_tool: np.ndarray, test: torch.Tensor) -> np.ndarray:
    """Tool positions (M, 2) m that a linear probe reads off the latents `test` (M, *L), fitted on `train` (N, *L) with
    train_tool (N, 2) m. Patch tokens are averaged first."""
    train, test = (z.mean(1) if z.ndim > 2 else z for z in (train, test))
    design = np.hstack([train.numpy(), np.ones((len(train), 1))])
    weights = np.linalg.lstsq(design, train_tool, rcond=None)[0]
    return np.hstack([test.numpy(), np.ones((len(test), 1))]) @ weights


def probe_r2(train: torch.Tensor, train_tool: np.ndarray, test: torch.Tensor, test_tool: np.ndarray) -> float:
    """R^2 of a linear probe of the tool position (m) from the pixel latent alone, fitted on training episodes."""
    residual = ((probe(train, train_tool, test) - test_tool) ** 2).sum()
    return float(1 - residual / ((test_tool - test_tool.mean(0)) ** 2).sum())


def collapse(health: dict[str, float]) -> str:
    """One sentence where these figures of `latent_health` say that the latents have collapsed; empty otherwise."""
    if health["spread"] < 1e-3:
        return f"collapsed: every frame has nearly the same latent (mean std {health['spread']:.1e})"
    if health["effective_rank"] < 1.5:
        return f"collapsed: the latents lie on a line (effective rank {health['effective_rank']:.2f})"
    return ""
