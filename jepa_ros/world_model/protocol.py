"""The interface of world models, and the parts that their families share.

Shapes: B situations; C cameras; S pixels of a frame's side; T consecutive model steps, oldest first; h = `history`, the
steps that a model looks back; L = `latent_shape`, (D,) or (tokens, D), of all views together; P proprioception, 0
without; K = block * A numbers of an action block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from jepa_ros.errors import InputError


@dataclass(frozen=True)
class Context:
    """Start of a rollout. latents (B, h, *L). states (B, h, P), normalised. actions (B, h - 1, K): the executed blocks
    between them."""

    latents: torch.Tensor
    states: torch.Tensor
    actions: torch.Tensor

    def expand(self, count: int) -> Context:
        """Return a context of one situation (B = 1) repeated `count` times, without a copy."""
        return Context(*(x.expand(count, *x.shape[1:]) for x in (self.latents, self.states, self.actions)))

    def to(self, device: torch.device) -> Context:
        """Return the context on a device."""
        return Context(*(x.to(device) for x in (self.latents, self.states, self.actions)))


class WorldModel(Protocol):
    """Interface of a model for planners, nodes and evaluations."""

    latent_shape: tuple[int, ...]
    history: int

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Encode frames, uint8 RGB, → latents (B, *L).

        frames: (B, S, S, 3), or (B, C, S, S, 3) of C > 1 cameras in the order of ModelConfig.cameras. Raises InputError
        for another number of views.
        """

    def predict(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict one step (teacher-forced): latents (B, T, *L), states (B, T, P), actions (B, T, K), T ≤ h → the next
        latents (B, T, *L) and states (B, T, P). Entry t is predicted from the entries up to t only.
        """

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the effect of action blocks (B, H, K) from the context on → latents (B, H, *L), states (B, H, P)."""


class PredictiveModel(nn.Module):
    """Base class of the families: `rollout` repeats `predict` on a sliding window of `history` steps."""

    latent_shape: tuple[int, ...]
    history: int

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.history
        latents, states = list(context.latents.unbind(1)), list(context.states.unbind(1))
        blocks = torch.cat([context.actions, actions], dim=1)
        first = len(latents)
        for step in range(first, first + actions.shape[1]):
            low = max(0, step - h)
            latent, state = self.predict(
                torch.stack(latents[low:step], 1), torch.stack(states[low:step], 1), blocks[:, low:step]
            )
            latents.append(latent[:, -1])
            states.append(state[:, -1])
        return torch.stack(latents[first:], 1), torch.stack(states[first:], 1)


def step_context(model: WorldModel, context: Context, block: torch.Tensor) -> Context:
    """Return the context (B, h, ...) one model step later, as the model predicts it for an action block (B, 1, K)."""
    latents, states = model.rollout(context, block)
    return Context(
        torch.cat([context.latents[:, 1:], latents], dim=1),
        torch.cat([context.states[:, 1:], states], dim=1),
        torch.cat([context.actions, block], dim=1)[:, 1:],
    )


def flatten_views(frames: np.ndarray | torch.Tensor, cameras: int) -> np.ndarray | torch.Tensor:
    """Reshape frames of WorldModel.encode to (B * C, S, S, 3), the views of a situation one after the other.

    Raises InputError for another number of cameras.
    """
    views = () if cameras == 1 else (cameras,)
    if frames.ndim != 4 + len(views) or tuple(frames.shape[1:-3]) != views or frames.shape[-1] != 3:
        expected = ", ".join(map(str, ("B", *views, "S", "S", 3)))
        raise InputError(f"frames: expected shape ({expected}), found {tuple(frames.shape)}")
    return frames if cameras == 1 else frames.reshape(-1, *frames.shape[2:])


def as_images(frames: np.ndarray | torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Frames (B, H, W, 3) uint8 → images (B, 3, H, W) float32, normalised by mean and std (3,) of values 0 to 1."""
    tensor = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    pixels = tensor.to(mean.device).permute(0, 3, 1, 2).float()
    # (x / 255 - mean) / std in one pass over the pixels.
    return torch.addcmul((-mean / std).view(3, 1, 1), pixels, (1.0 / (255.0 * std)).view(3, 1, 1))


def frame_causal_mask(frames: int, tokens: int, device: torch.device | None = None) -> torch.Tensor:
    """Return an attention mask (frames * tokens, frames * tokens): True where a row attends to a column.

    That is where the row's frame is the column's or a later one.
    """
    frame = torch.arange(frames, device=device).repeat_interleave(tokens)
    return frame.unsqueeze(1) >= frame.unsqueeze(0)
